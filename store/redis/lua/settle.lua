-- Carries out ARGV[i] on KEYS[i]: kind (1 byte), token (7), TTL (6, ms), and
--   X extend:           lease (6, ms)
--   C complete, P park: the new state's byte, length of fingerprint and position
--                       (2), fingerprint (8), position, result
--   R release:          whether it is ambiguous (1), how many attempts it counts (1)
local ttl6, expires, expires6
for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  local v, state, ambiguous = load(key)
  local kind, token = sub(op, 1, 1), sub(op, 2, 8)
  local ours = v and sub(v, 3, 9) == token
  local ttl = sub(op, 9, 14)
  if ttl ~= ttl6 then
    ttl6, expires = ttl, now + number6(op, 9)
    expires6 = bytes6(expires)
  end
  status[i], record[i] = 'L', ''
  if state == nil then
    status[i], record[i] = 'E', ambiguous
  elseif kind == 'C' or kind == 'P' then
    local result = 18 + byte(op, 16) * 256 + byte(op, 17)
    local head = VERSION .. sub(op, 15, 15) .. token .. expires6
    if state == 0 then
      head = head .. bytes6(now) .. NONE .. sub(op, 18, result - 1)
    elseif not ours then
      head, record[i] = nil, v
    elseif state == CLAIMED then
      head = head .. sub(v, 16, 23) .. sub(v, 38)
    elseif state == RELEASED then
      head = head .. sub(v, 16, 23) .. sub(v, 32)
    else -- a retry: the first answer stands
      head, status[i], record[i] = nil, 'O', v
    end
    if head then
      redis.call('SET', key, head .. sub(op, result), 'PXAT', deadline(expires, number7(op, 2)))
      status[i], record[i] = 'S', head -- the caller has the result
    end
  elseif state ~= 0 then
    record[i] = v
    if ours and state == CLAIMED then
      if kind == 'R' then
        if byte(op, 15) > 0 then ambiguous = AMBIGUOUS end
        local attempt = byte(v, 22) * 256 + byte(v, 23) + byte(op, 16)
        if attempt > 65535 then attempt = 65535 end
        v = VERSION .. char(RELEASED + ambiguous) .. token .. expires6 .. sub(v, 16, 21)
          .. char(floor(attempt / 256), attempt % 256) .. sub(v, 30)
        redis.call('SET', key, v, 'PXAT', deadline(expires, number7(op, 2)))
        status[i], record[i] = 'O', v
      elseif number6(v, 24) > now then
        local ending = now + number6(op, 15)
        local last = ending + number6(op, 9)
        v = sub(v, 1, 9) .. bytes6(last) .. sub(v, 16, 23) .. bytes6(ending) .. sub(v, 30)
        redis.call('SET', key, v, 'PXAT', deadline(last, number7(op, 2)))
        status[i], record[i] = 'O', v
      end
    end
  end
end
