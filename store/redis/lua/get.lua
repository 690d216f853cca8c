-- Returns what KEYS[1] holds.
status[1], record[1] = 'O', redis.call('GET', KEYS[1]) or ''
