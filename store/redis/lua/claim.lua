-- Claims KEYS[i] as ARGV[i] says: lease (6 bytes, ms), TTL (6, ms), least token
-- (7), nonce (8), fingerprint (8), position.
local terms, lease_end, middle, token, token7, pxat
local NOPRINT = '\0\0\0\0\0\0\0\0'
for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  local v, state, ambiguous = load(key)
  if state == nil then
    status[i], record[i] = 'E', ambiguous
  elseif state ~= 0 then
    -- Where the fingerprint stands depends on the state.
    local at = state == CLAIMED and 38 or state == RELEASED and 32 or 24
    local print, other = sub(v, at, at + 7), sub(op, 28, 35)
    if print ~= other and print ~= NOPRINT and other ~= NOPRINT then
      status[i], record[i] = 'C', v
    elseif state == DONE then
      status[i], record[i] = 'D', v
    elseif state == PARKED then
      status[i], record[i] = 'P', v
    elseif state == CLAIMED and number6(v, 24) > now then
      status[i] = sub(v, 30, 37) == sub(op, 20, 27) and 'G' or 'H'
      record[i] = v
    else
      local attempt = byte(v, 22) * 256 + byte(v, 23)
      if state == CLAIMED then
        -- The holder died or was paused: nobody knows how far its run came.
        attempt, ambiguous = attempt + 1, AMBIGUOUS
        if attempt > 65535 then attempt = 65535 end
      end
      if print == NOPRINT then print = other end
      local own = math.max(us, number7(op, 13), number7(v, 3) + 1)
      local ending = now + number6(op, 1)
      local expires = ending + number6(op, 7)
      v = VERSION .. char(CLAIMED + ambiguous) .. bytes7(own) .. bytes6(expires) .. sub(v, 16, 21)
        .. char(floor(attempt / 256), attempt % 256) .. bytes6(ending) .. sub(op, 20, 27) .. print .. sub(v, at + 8)
      redis.call('SET', key, v, 'PXAT', deadline(expires, own))
      status[i], record[i] = 'G', v
    end
  else
    -- The claims of a batch have mostly the same terms: they are worked out once.
    local mine = sub(op, 1, 19)
    if mine ~= terms then
      terms = mine
      lease_end = now + number6(op, 1)
      local expires = lease_end + number6(op, 7)
      token = math.max(us, number7(op, 13))
      token7 = VERSION .. char(CLAIMED) .. bytes7(token)
      middle = bytes6(expires) .. bytes6(now) .. NONE .. bytes6(lease_end)
      pxat = deadline(expires, token)
    end
    if v and number7(v, 3) >= token then
      -- Forgotten or expired, with a token ahead of the clock.
      local own = number7(v, 3) + 1
      v = VERSION .. char(CLAIMED) .. bytes7(own) .. middle .. sub(op, 20)
      redis.call('SET', key, v, 'PXAT', deadline(lease_end + number6(op, 7), own))
    else
      v = token7 .. middle .. sub(op, 20)
      redis.call('SET', key, v, 'PXAT', pxat)
    end
    status[i], record[i] = 'G', v
  end
end
