-- Returns the records of KEYS. Writes nothing.
for i = 1, #KEYS do
  local v, state, err = load(KEYS[i])
  if state == nil then
    status[i], record[i] = 'E', err
  else
    status[i], record[i] = 'O', state ~= 0 and v or ''
  end
end
