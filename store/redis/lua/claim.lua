-- Claims KEYS[i] as ARGV[i] says: lease (6 bytes, ms), TTL (6, ms), least token
-- (7), nonce (8), fingerprint (8), position.
local NOPRINT = '\0\0\0\0\0\0\0\0'
local terms, head, life
for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  -- The claims of a batch have mostly the same terms: they are worked out once.
  local mine = sub(op, 1, 19)
  if mine ~= terms then
    terms = mine
    local ending = now + number6(op, 1)
    local expires = ending + number6(op, 7)
    local token = math.max(us, number7(op, 13))
    head = VERSION .. char(CLAIMED) .. bytes7(token) .. bytes6(expires) .. bytes6(now) .. NONE .. bytes6(ending)
    life = lifetime(expires, token)
  end
  -- Mostly the key is free. If not, this changes nothing.
  local fresh = head .. sub(op, 20)
  local v = redis.pcall('SET', key, fresh, 'NX', 'GET', 'PX', life)
  local state, ambiguous = parse(v)
  if not v then
    status[i], record[i] = 'G', fresh
  elseif state == nil then
    status[i], record[i] = 'E', ambiguous
  else
    -- Where the fingerprint stands depends on the state.
    local at = state == CLAIMED and 38 or state == RELEASED and 32 or 24
    local print, other = sub(v, at, at + 7), sub(op, 28, 35)
    record[i] = v
    if state ~= FREE and print ~= other and print ~= NOPRINT and other ~= NOPRINT then
      status[i] = 'C'
    elseif state == DONE then
      status[i] = 'D'
    elseif state == PARKED then
      status[i] = 'P'
    elseif state == CLAIMED and number6(v, 24) > now then
      status[i] = sub(v, 30, 37) == sub(op, 20, 27) and 'G' or 'H'
    else
      local token = math.max(us, number7(op, 13), number7(v, 3) + 1)
      local ending = now + number6(op, 1)
      local expires = ending + number6(op, 7)
      if state == FREE then
        -- Expired or forgotten, with a token that may be ahead of the clock.
        v = VERSION .. char(CLAIMED) .. bytes7(token) .. sub(fresh, 10)
      else
        local attempt = byte(v, 22) * 256 + byte(v, 23)
        if state == CLAIMED then
          -- The holder died or was paused: nobody knows how far its run came.
          ambiguous, attempt = AMBIGUOUS, math.min(attempt + 1, 65535)
        end
        if print == NOPRINT then print = other end
        v = VERSION .. char(CLAIMED + ambiguous) .. bytes7(token) .. bytes6(expires) .. sub(v, 16, 21)
          .. char(floor(attempt / 256), attempt % 256) .. bytes6(ending) .. sub(op, 20, 27) .. print .. sub(v, at + 8)
      end
      redis.call('SET', key, v, 'PX', lifetime(expires, token))
      status[i], record[i] = 'G', v
    end
  end
end
