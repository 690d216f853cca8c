-- Forgets KEYS, unless one of them is held: all or none. What is left of a record
-- whose token is ahead of the clock is that token.
local held = false
for i = 1, #KEYS do
  local v, state, err = load(KEYS[i])
  status[i], record[i] = 'O', ''
  if state == nil then
    status[i], record[i], held = 'E', err, true
  elseif state == CLAIMED and number6(v, 24) > now then
    status[i], record[i], held = 'H', v, true
  elseif v then
    record[i] = sub(v, 3, 9)
  end
end
for i = 1, #KEYS do
  if not held and record[i] ~= '' then
    local token = number7(record[i], 1)
    if token < us then
      redis.call('DEL', KEYS[i])
    else
      redis.call('SET', KEYS[i], VERSION .. '\0' .. record[i] .. bytes6(now) .. bytes6(now) .. NONE, 'PXAT', deadline(now, token))
    end
    record[i] = ''
  end
end
