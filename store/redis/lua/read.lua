-- Returns the records of KEYS. Writes nothing.
for i = 1, #KEYS do
  local v = redis.pcall('GET', KEYS[i])
  local state, err = parse(v)
  if state == nil then
    status[i], record[i] = 'E', err
  else
    status[i], record[i] = 'O', state ~= FREE and v or ''
  end
end
