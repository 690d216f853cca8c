if #KEYS == 1 then return status[1] .. record[1] end
return {table.concat(status), record}
