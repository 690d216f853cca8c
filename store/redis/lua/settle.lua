-- Carries out ARGV[i] on KEYS[i]: kind (1 byte), TTL (6, ms), what the record would
-- begin with, which is version (1), state (1) and token (7), and
--   X extend:  lease (6, ms)
--   S settle:  where the result begins, from 1 (2), fingerprint (8), position, result
--   R release: whether it is ambiguous (1), how many attempts it counts (1)
local SETTLE, RELEASE = 83, 82
local terms, expires, expires6, life
for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  local kind = byte(op, 1)
  local mine = sub(op, 2, 7)
  if mine ~= terms then
    terms, expires = mine, now + number6(op, 2)
    expires6, life = bytes6(expires), lifetime(expires, 0)
  end
  local v = redis.pcall('GET', key)
  local state, ambiguous = parse(v)
  local ours = state and state ~= FREE and sub(v, 3, 9) == sub(op, 10, 16)
  local token = number7(op, 10)
  local ends = token < expires * 1000 and life or lifetime(expires, token)
  status[i], record[i] = 'L', state ~= FREE and v or ''
  if state == nil then
    status[i], record[i] = 'E', ambiguous
  elseif kind == SETTLE then
    local rest
    local result = byte(op, 17) * 256 + byte(op, 18)
    if state == FREE then
      rest = bytes6(now) .. NONE .. sub(op, 19, result - 1)
    elseif ours and state == CLAIMED then
      rest = sub(v, 16, 23) .. sub(v, 38)
    elseif ours and state == RELEASED then
      rest = sub(v, 16, 23) .. sub(v, 32)
    elseif ours then -- a retry: the first answer stands
      status[i] = 'O'
    end
    if rest then
      local head = sub(op, 8, 16) .. expires6 .. rest
      redis.call('SET', key, head .. sub(op, result), 'PX', ends)
      status[i], record[i] = 'S', head -- the caller has the result
    end
  elseif ours and state == CLAIMED and kind == RELEASE then
    if byte(op, 17) > 0 then ambiguous = AMBIGUOUS end
    local attempt = math.min(byte(v, 22) * 256 + byte(v, 23) + byte(op, 18), 65535)
    v = VERSION .. char(RELEASED + ambiguous) .. sub(v, 3, 9) .. expires6 .. sub(v, 16, 21)
      .. char(floor(attempt / 256), attempt % 256) .. sub(v, 30)
    redis.call('SET', key, v, 'PX', ends)
    status[i], record[i] = 'O', v
  elseif ours and state == CLAIMED and number6(v, 24) > now then
    local ending = now + number6(op, 17)
    local last = ending + number6(op, 2)
    v = sub(v, 1, 9) .. bytes6(last) .. sub(v, 16, 23) .. bytes6(ending) .. sub(v, 30)
    redis.call('SET', key, v, 'PX', lifetime(last, token))
    status[i], record[i] = 'O', v
  end
end
