-- Forgets KEYS, unless one of them is claimed or ambiguous, or, if ARGV[i] is
-- "force", has a claim with a note: all or none. What is left of a record whose
-- token is ahead of the clock is that token.
local refused = false
local tokens = {}
for i = 1, #KEYS do
  local v = redis.pcall('GET', KEYS[i])
  local state, err = parse(v)
  local held = false
  if state == CLAIMED and ARGV[i] == 'force' then
    local note, at = claimed(v)
    held = note < at
  elseif state and state ~= FREE and ARGV[i] ~= 'force' then
    held = state == CLAIMED or err == AMBIGUOUS
  end
  status[i], record[i] = 'O', ''
  if state == nil then
    status[i], record[i], refused = 'E', err, true
  elseif held then
    status[i], record[i], refused = 'H', v, true
  elseif v then
    tokens[i] = sub(v, 3, 9)
  end
end
for i = 1, #KEYS do
  if tokens[i] and not refused then
    local token = number7(tokens[i], 1)
    if token < us then
      redis.call('DEL', KEYS[i])
    else
      redis.call('SET', KEYS[i], VERSION .. '\0' .. tokens[i] .. bytes6(now) .. bytes6(now) .. NONE, 'PX', lifetime(now, token))
    end
  end
end
