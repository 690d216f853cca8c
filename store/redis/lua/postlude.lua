return {format('%.0f', us), table.concat(status), record}
