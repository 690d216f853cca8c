-- Claims KEYS[i] as ARGV[i] says: lease (6 bytes, ms), TTL (6, ms), least token
-- (7), state, which is CLAIMED and maybe TAGGED (1), nonce (8), nothing (2), length
-- of the note (2), note, fingerprint (8), its tag (4) if it is TAGGED, position.
local NOPRINT = '\0\0\0\0\0\0\0\0'
local terms, head, life
for i = 1, #KEYS do
  local key, op = KEYS[i], ARGV[i]
  -- The claims of a batch have mostly the same terms: they are worked out once.
  local mine = sub(op, 1, 20)
  if mine ~= terms then
    terms = mine
    local ending = now + number6(op, 1)
    local expires = ending + number6(op, 7)
    local token = math.max(us, number7(op, 13))
    head = VERSION .. sub(op, 20, 20) .. bytes7(token) .. bytes6(expires) .. bytes6(now) .. NONE .. bytes6(ending)
    life = lifetime(expires, token)
  end
  -- Mostly the key is free. If not, this changes nothing.
  local fresh = head .. sub(op, 21)
  local v = redis.pcall('SET', key, fresh, 'NX', 'GET', 'PX', life)
  local state, ambiguous = parse(v)
  if not v then
    status[i], record[i] = 'G', fresh
  elseif state == nil then
    status[i], record[i] = 'E', ambiguous
  elseif state == FREE then
    -- Expired or forgotten, with a token that may be ahead of the clock.
    local token = math.max(us, number7(op, 13), number7(v, 3) + 1)
    v = VERSION .. sub(op, 20, 20) .. bytes7(token) .. sub(fresh, 10)
    redis.call('SET', key, v, 'PX', lifetime(number6(v, 10), token))
    status[i], record[i] = 'G', v
  else
    -- Where the fingerprint stands depends on the state.
    local noteAt, at = 0, state == RELEASED and 32 or 24
    if state == CLAIMED then noteAt, at = claimed(v) end
    local oat = 33 + byte(op, 31) * 256 + byte(op, 32)
    local print, other = sub(v, at, at + 7), sub(op, oat, oat + 7)
    local tags, otags = tag(v, at), byte(op, 20) >= TAGGED and sub(op, oat + 8, oat + 11) or ''
    local compared = print ~= NOPRINT and other ~= NOPRINT and tags == otags
    local lives = state == CLAIMED and number6(v, 24) > now
    record[i] = v
    if compared and print ~= other then
      status[i] = 'C'
    elseif state == DONE then
      status[i] = 'D'
    elseif state == PARKED then
      status[i] = 'P'
    elseif lives and sub(v, 30, 37) == sub(op, 21, 28) then
      status[i] = 'G'
    elseif lives or noteAt < at and state == CLAIMED then
      -- With a note it is never taken over: the note says how to learn what became of it.
      status[i] = 'H'
    else
      local token = math.max(us, number7(op, 13), number7(v, 3) + 1)
      local ending = now + number6(op, 1)
      local expires = ending + number6(op, 7)
      local attempt = byte(v, 22) * 256 + byte(v, 23)
      if state == CLAIMED then
        -- The holder died or was paused: nobody knows how far its run came.
        ambiguous, attempt = AMBIGUOUS, math.min(attempt + 1, 65535)
      end
      local first, held = sub(v, at + 8 + #tags), sub(op, oat + 8 + #otags)
      if held == first then held = '' end
      if not compared and other ~= NOPRINT then print, tags = other, otags end
      v = VERSION .. char(CLAIMED + ambiguous + (tags ~= '' and TAGGED or 0)) .. bytes7(token) .. bytes6(expires)
        .. sub(v, 16, 21) .. char(floor(attempt / 256), attempt % 256) .. bytes6(ending) .. sub(op, 21, 28)
        .. char(floor(#held / 256), #held % 256) .. sub(op, 31, 32) .. held .. sub(op, 33, oat - 1) .. print .. tags .. first
      redis.call('SET', key, v, 'PX', lifetime(expires, token))
      status[i], record[i] = 'G', v
    end
  end
end
