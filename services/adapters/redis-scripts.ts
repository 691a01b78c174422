// What runs inside Redis. Each script reads and writes keys of one hash tag only, those of one shard of a generation (or
// those of the control tag), so that it runs as it is in a Cluster. Keys beyond the declared ones are made from the tag of
// the first, which is what Redis asks of a script in a Cluster: they stand in the same slot.
//
// Keys of a shard, T = `{prefix:group-generation-shard-incarnation}`; numbers are hex:
//   Ts              hash: role (build, live, gone), epoch, pos, dig, lin, n, docs, recs, segs, ents, stage, torn
//   Th              the hold of a promotion: a token with an expiry
//   Tp              hash: the sealed stage, until all of it is applied; Tg<stage>.<chunk> its chunks
//   Td<key>         a document
//   To<space>       zset: the first characters of the keys of an ordered space; To<space>/<first> the rest of them
//   Tr<seg>.<block> hash: rows of 128 ordinals; field `<ordinal>`, further chunks of sub-records `<ordinal>.<number>`
//   Tk<level>.<b>   hash: keyed terms and record keys → locators of six bytes; past ten in strings of their own, Tk….<id>.<part>
//   Tl<seg>.<b>     hash: short postings by term, an empty value for one that stands apart; Tm<seg>.<b> the same for terms that
//                   came when the segment had grown
//   Tb<seg>.<term>  a posting apart: a long list, or a bitmap
//   Tc<seg>.<page>  a page of a column
//   TD<workspace>   hash: day → its segments, their sizes and versions; TV<workspace> zset: days by the commit that last touched them
//
// Documents are strings of their own, rows of records stand in hashes. Measured on Redis 7.0.15 with 100,000 values, memory
// a value besides its length, and a page of 100 by key: as strings 150 to 180 B (the key with its tag, 80; the entry of the
// keyspace; jemalloc's rounding), one MGET; in hashes of 64, 90 to 130 B where values are over 64 bytes and 30 B where all
// of a bucket are shorter, but the page by a script of 100 HGETs took 1.1 to 4 times as long. A document is read by its
// key in every page and every fold, and is long: strings. A row is some 300 B, is read in blocks of neighbours (one HMGET
// for those of a block), and would be a second key for every journey: hashes. Terms and keyed entries are short: hashes
// small enough to stay listpacks.
//
// A Cluster must not move a slot while its shards are written: until all of a slot's keys are over, a script would find
// some of them missing. Stop the projectors for as long (or use a server that moves slots whole).
import { createHash } from 'node:crypto';

export interface Script { readonly lua: string; readonly sha: string; readonly readOnly: boolean }

function script(readOnly: boolean, ...parts: readonly string[]): Script {
  const lua = parts.join('\n');
  return { lua, sha: createHash('sha1').update(lua).digest('hex'), readOnly };
}

/** Locators in a bucket's own value: 60 bytes at most, so that the bucket stays a listpack (hash-max-listpack-value 64). */
export const LOCATORS_INLINE = 10;
/** Bytes of one string of locators. */
export const LOCATORS_PART = 6_000;
/** Buckets of level l: 1,024 * 16^l. New entries go to the level that then holds 64 a bucket, the last one for ever; looking something up asks every level so far. */
export const BUCKETS = 1_024;
export const BUCKET_ENTRIES = 64;
export const LEVELS_MAX = 3;
export const ROWS_BLOCK = 128;
/**
 * Buckets of a segment's lists: few while it is small, since each costs a hundred bytes; many for the terms that come when
 * it has grown, so that a bucket stays a listpack (512 entries) even where each record has a term of its own: 34 B instead
 * of 127 for such a term.
 */
export const LIST_BUCKETS = [16, 256] as const;
/** Ordinals of a segment from which on new terms go to the many. */
export const LIST_GROWN = 4_096;

/** What makes room must not be refused for lack of it, nor what takes next to none. The first line of a script. */
const ALLOW_OOM = '#!lua flags=allow-oom';

const TAG = `local T = string.sub(KEYS[1], 1, -2)`;

const BUCKET = `
local function bucket(level, id)
  return T .. string.format('k%x.%x', level, struct.unpack('<I4', id) % (${BUCKETS} * 16 ^ level))
end`;

/**
 * Why a commit may not be made, or nil. A commit that was sent twice, because its first reply was lost, finds its own
 * lineage and number: it stands. `stale`: the position is the one expected, but it is not the commit that this writer's
 * memory is built on (a Redis that lost its last writes, folded again by somebody else).
 */
const CHECK = `
local function refused(role, expected, lin, n, newlin, newn)
  local s = redis.call('HMGET', KEYS[1], 'role', 'pos', 'lin', 'n', 'stage', 'torn')
  if not s[1] then return {'gone', ''} end
  if s[3] == newlin and s[4] == newn then return {'committed'} end
  if s[6] then return {'torn'} end
  if s[1] == 'gone' then return {'gone', s[2] or ''} end
  if role == 'live' and redis.call('EXISTS', T .. 'h') == 1 then return {'held'} end
  if s[1] ~= role then return {'role', s[2] or ''} end
  if s[5] then return {'stage', s[5]} end
  if (s[2] or '') ~= expected then return {'moved', s[2] or ''} end
  if (s[3] or '') ~= lin or s[4] ~= n then return {'stale'} end
  return nil
end`;

/** Carries out packed operations; answers how many documents there are more. Most are plain commands. */
const APPLY = `
local function without(v, l)
  local at = 1
  while true do
    at = string.find(v, l, at, true)
    if not at then return nil end
    if at % 6 == 1 then return string.sub(v, 1, at - 1) .. string.sub(v, at + 6) end
    at = at + 1
  end
end
local function located(key, id, v, l)
  if not v then return l end
  if #v ~= 5 then
    if #v < ${LOCATORS_INLINE * 6} then return v .. l end
    redis.call('SET', key .. '.' .. id .. '.0', v .. l)
    return 'x' .. struct.pack('<I4', 0)
  end
  local part = struct.unpack('<I4', v, 2)
  if redis.call('APPEND', key .. '.' .. id .. '.' .. part, l) < ${LOCATORS_PART} then return v end
  return 'x' .. struct.pack('<I4', part + 1)
end
local function locate(op)
  local key = bucket(op[2], op[3])
  local ids = {}
  for i = 3, #op, 2 do ids[#ids + 1] = op[i] end
  local old = redis.call('HMGET', key, unpack(ids))
  local now, set = {}, {}
  for i, id in ipairs(ids) do now[id] = located(key, id, now[id] or old[i], op[2 * i + 2]) end
  for id, v in pairs(now) do
    set[#set + 1] = id
    set[#set + 1] = v
  end
  redis.call('HSET', key, unpack(set))
end
local function unlocate(id, l, levels)
  for level = levels, 0, -1 do
    local key = bucket(level, id)
    local v = redis.call('HGET', key, id)
    if v and #v ~= 5 then
      local rest = without(v, l)
      if rest == '' then redis.call('HDEL', key, id) return end
      if rest then redis.call('HSET', key, id, rest) return end
    elseif v then
      local last = struct.unpack('<I4', v, 2)
      for part = last, 0, -1 do
        local name = key .. '.' .. id .. '.' .. part
        local rest = without(redis.call('GET', name) or '', l)
        if rest and rest ~= '' then redis.call('SET', name, rest) return end
        if rest then
          redis.call('UNLINK', name)
          while last >= 0 and redis.call('EXISTS', key .. '.' .. id .. '.' .. last) == 0 do last = last - 1 end
          if last < 0 then redis.call('HDEL', key, id) else redis.call('HSET', key, id, 'x' .. struct.pack('<I4', last)) end
          return
        end
      end
    end
  end
end
local function apply(blob)
  local added = 0
  for _, op in ipairs(cmsgpack.unpack(blob)) do
    local name = op[1]
    if name == '+' then locate(op)
    elseif name == '-' then unlocate(op[2], op[3], op[4])
    elseif name == 'MSET' then
      local keys = {}
      for i = 2, #op, 2 do keys[#keys + 1] = op[i] end
      added = added + #keys - redis.call('EXISTS', unpack(keys))
      redis.call(unpack(op))
    elseif name == 'UNLINK' then added = added - redis.call(unpack(op))
    elseif name == 'O' then
      if redis.call('EXISTS', op[2]) == 0 then
        added = added + 1
        redis.call('ZADD', op[4], 0, op[5])
        redis.call('ZADD', op[4] .. '/' .. op[5], 0, op[6])
      end
      redis.call('SET', op[2], op[3])
    elseif name == 'P' then
      if redis.call('UNLINK', op[2]) == 1 then
        added = added - 1
        redis.call('ZREM', op[3] .. '/' .. op[4], op[5])
        if redis.call('EXISTS', op[3] .. '/' .. op[4]) == 0 then redis.call('ZREM', op[3], op[4]) end
      end
    elseif name == 'DROP' then redis.call('UNLINK', op[2])
    else redis.call(unpack(op)) end
  end
  return added
end`;

/**
 * role, expected, lin, n, newlin, newn, position, digest, records, segments, entries, then packed operations.
 *
 * A script that fails half-way is not rolled back, so nothing that can fail by itself comes after the first write: memory
 * is checked by Redis before it (\`-OOM\` is no answer to a script that has written), conditions above. What is left is a
 * key of ours that somebody else made into another type. Checking each key's type would cost a quarter more calls; a mark
 * that only a whole commit takes away costs two, catches every other fault too, and a view that carries it answers
 * nobody until it is folded anew.
 */
export const COMMIT = script(false, TAG, BUCKET, CHECK, APPLY, `
local no = refused(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
if no then return no end
redis.call('HSET', KEYS[1], 'torn', ARGV[7])
local added = 0
for i = 12, #ARGV do added = added + apply(ARGV[i]) end
redis.call('HINCRBY', KEYS[1], 'docs', added)
redis.call('HDEL', KEYS[1], 'torn')
redis.call('HSET', KEYS[1], 'lin', ARGV[5], 'n', ARGV[6], 'recs', ARGV[9], 'segs', ARGV[10], 'ents', ARGV[11], 'dig', ARGV[8], 'pos', ARGV[7])
return {'committed'}`);

/** As COMMIT up to the entries, then the stage's name and its number of chunks: from here the commit stands. */
export const SEAL = script(false, TAG, CHECK, `
if redis.call('HGET', KEYS[1], 'stage') == ARGV[12] then return {'sealed'} end
local no = refused(ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6])
if no then return no end
for i = 0, ARGV[13] - 1 do
  if redis.call('PERSIST', T .. 'g' .. ARGV[12] .. '.' .. i) == 0 then return {'incomplete'} end
end
redis.call('HSET', T .. 'p', 'count', ARGV[13], 'done', 0, 'lin', ARGV[5], 'n', ARGV[6], 'recs', ARGV[9], 'segs', ARGV[10], 'ents', ARGV[11], 'dig', ARGV[8], 'pos', ARGV[7])
redis.call('HSET', KEYS[1], 'stage', ARGV[12])
return {'sealed'}`);

/**
 * Stage, chunk: applies it if it is the next one, and says which is next, -1 when there is none. Two workers may both come
 * to finish a stage: each chunk goes with the call that applied it, so that the second call finds another to be next. The
 * last one moves position and digest.
 */
export const APPLY_CHUNK = script(false, TAG, BUCKET, APPLY, `
local s = redis.call('HMGET', KEYS[1], 'stage', 'torn', 'role')
if s[1] ~= ARGV[1] or s[3] == 'gone' then return -1 end
if s[2] then return -2 end
local p = redis.call('HMGET', T .. 'p', 'done', 'count', 'lin', 'n', 'recs', 'segs', 'ents', 'dig', 'pos')
if p[1] ~= ARGV[2] then return tonumber(p[1]) end
local key = T .. 'g' .. ARGV[1] .. '.' .. ARGV[2]
local blob = redis.call('GET', key)
if not blob then return -2 end
redis.call('HSET', KEYS[1], 'torn', p[9])
local added = apply(blob)
redis.call('UNLINK', key)
redis.call('HINCRBY', KEYS[1], 'docs', added)
redis.call('HDEL', KEYS[1], 'torn')
local nextone = ARGV[2] + 1
if nextone < tonumber(p[2]) then
  redis.call('HSET', T .. 'p', 'done', nextone)
  return nextone
end
redis.call('UNLINK', T .. 'p')
redis.call('HSET', KEYS[1], 'lin', p[3], 'n', p[4], 'recs', p[5], 'segs', p[6], 'ents', p[7], 'dig', p[8], 'pos', p[9])
redis.call('HDEL', KEYS[1], 'stage')
return -1`);

// ---- a shard's role ----------------------------------------------------------------------------------------------------

const MAKE = `
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], 'role', 'build', 'epoch', 0, 'n', 0, 'docs', 0, 'recs', 0, 'segs', 0, 'ents', 0) end`;

export const MAKE_SHARD = script(false, MAKE, 'return 1');

/** token, milliseconds: 1 held, 0 when another holds it or it is gone. */
export const HOLD = script(false, TAG, `
if redis.call('HGET', KEYS[1], 'role') == 'gone' then return 0 end
if redis.call('GET', T .. 'h') == ARGV[1] or redis.call('SET', T .. 'h', ARGV[1], 'NX') then
  redis.call('PEXPIRE', T .. 'h', ARGV[2])
  return 1
end
return 0`);

/**
 * epoch, token, milliseconds, the token of a hold that must stand, or nothing: no longer live, and held for as long as the
 * pointer is on its way. -1 when that hold has ended: a commit may have come since.
 */
export const DEMOTE = script(false, TAG, MAKE, `
if ARGV[4] and ARGV[4] ~= '' and redis.call('GET', T .. 'h') ~= ARGV[4] then return -1 end
local s = redis.call('HMGET', KEYS[1], 'role', 'epoch')
if s[1] == 'gone' or tonumber(ARGV[1]) <= tonumber(s[2]) then return 0 end
redis.call('HSET', KEYS[1], 'role', 'build', 'epoch', ARGV[1])
redis.call('SET', T .. 'h', ARGV[2], 'PX', ARGV[3])
return 1`);

/** epoch: live, unless a later word was said. */
export const ENLIVEN = script(false, MAKE, `
local s = redis.call('HMGET', KEYS[1], 'role', 'epoch')
if s[1] == 'gone' or tonumber(ARGV[1]) < tonumber(s[2]) then return 0 end
redis.call('HSET', KEYS[1], 'role', 'live', 'epoch', ARGV[1])
return 1`);

/** token. */
export const UNHOLD = script(false, TAG, `
if redis.call('GET', T .. 'h') == ARGV[1] then redis.call('DEL', T .. 'h') end
return 1`);

export const MARK_GONE = script(false, ALLOW_OOM, `
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'role', 'gone') end
return 1`);

/** cursor, pattern, count, milliseconds: gives the next keys of a shard that is gone an end; the next cursor. */
export const EXPIRE_SLICE = script(false, ALLOW_OOM, `
local found = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
for _, key in ipairs(found[2]) do redis.call('PEXPIRE', key, ARGV[4], 'NX') end
return found[1]`);

/** cursor, prefix, count: the next cursor, keys looked at, ours among them, the memory of ours, all keys of this server. */
export const MEASURE_SLICE = script(true, `
local found = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[3])
local ours, bytes = 0, 0
for _, key in ipairs(found[2]) do
  if string.sub(key, 1, #ARGV[2]) == ARGV[2] then
    ours = ours + 1
    bytes = bytes + (redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) or 0)
  end
end
return {found[1], #found[2], ours, bytes, redis.call('DBSIZE')}`);

// ---- the control tag: one hash per group -------------------------------------------------------------------------------

/** incarnation, body: the number of the generation; the same one when it is asked twice. */
export const CREATE_GENERATION = script(false, `
local known = redis.call('HGET', KEYS[1], 'i:' .. ARGV[1])
if known then return tonumber(known) end
local id = redis.call('HINCRBY', KEYS[1], 'made', 1)
redis.call('HSET', KEYS[1], 'g:' .. id, ARGV[2], 'i:' .. ARGV[1], id)
return id`);

/** Versions, those that are not noted yet in this order: all that are, each followed by its number. */
export const NOTE_VERSIONS = script(false, `
for _, version in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[1], 'v:' .. version) == 0 then redis.call('HSET', KEYS[1], 'v:' .. version, redis.call('HINCRBY', KEYS[1], 'seen', 1)) end
end
local all, out = redis.call('HGETALL', KEYS[1]), {}
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'v:' then
    out[#out + 1] = string.sub(all[i], 3)
    out[#out + 1] = all[i + 1]
  end
end
return out`);

/** from, to: the epoch of this promotion; 0 when another is live, -1 when there is no such generation. */
export const BEGIN_PROMOTION = script(false, `
if redis.call('HEXISTS', KEYS[1], 'g:' .. ARGV[2]) == 0 then return -1 end
if (redis.call('HGET', KEYS[1], 'live') or '') ~= ARGV[1] then return 0 end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)`);

/** from, to, epoch: 1 flipped, 0 another is live, -1 no such generation, -2 somebody began after this one. */
export const FLIP = script(false, `
local s = redis.call('HMGET', KEYS[1], 'live', 'epoch')
if s[1] == ARGV[2] and s[2] == ARGV[3] then return 1 end
if (s[1] or '') ~= ARGV[1] then return 0 end
if s[2] ~= ARGV[3] then return -2 end
if redis.call('HEXISTS', KEYS[1], 'g:' .. ARGV[2]) == 0 then return -1 end
redis.call('HSET', KEYS[1], 'live', ARGV[2], 'previous', ARGV[1])
return 1`);

/** id: a new epoch for the generation that is live; 0 when it is not. */
export const CLAIM = script(false, `
if redis.call('HGET', KEYS[1], 'live') ~= ARGV[1] then return 0 end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)`);

/** id: 0 when it is live; else it is listed no longer, and remembered until its keys have an end. */
export const BEGIN_DROP = script(false, ALLOW_OOM, `
if redis.call('HGET', KEYS[1], 'live') == ARGV[1] then return 0 end
local body = redis.call('HGET', KEYS[1], 'g:' .. ARGV[1])
if body then
  redis.call('HSET', KEYS[1], 'x:' .. ARGV[1], body)
  redis.call('HDEL', KEYS[1], 'g:' .. ARGV[1])
end
return 1`);

/** name, holder, milliseconds. By Redis' own clock, so that holders need not agree on the time. Leases of others that ran out go when a new one comes. */
export const LEASE = script(false, `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local v = redis.call('HGET', KEYS[1], ARGV[1])
if v then
  local ends, holder = string.match(v, '^(%d+) (.*)$')
  if holder ~= ARGV[2] and tonumber(ends) > now then return 0 end
else
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    if tonumber(string.match(all[i + 1], '^%d+')) <= now then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now + ARGV[3], ARGV[2]))
return 1`);

/** name, holder. */
export const RELEASE = script(false, `
local v = redis.call('HGET', KEYS[1], ARGV[1])
if v and string.match(v, '^%d+ (.*)$') == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
return 1`);

/** Those that stand now: name, holder, name, holder … */
export const LEASES = script(true, `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local out = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local ends, holder = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(ends) > now then
    out[#out + 1] = all[i]
    out[#out + 1] = holder
  end
end
return out`);

/** Four arguments a tally: number of its key, source, what it was read as, what it is to be. All or nothing; asked twice it answers as it did. */
export const TALLY = script(false, `
local same = true
for i = 1, #ARGV, 4 do
  local v = redis.call('HGET', KEYS[tonumber(ARGV[i])], ARGV[i + 1]) or ''
  if v ~= ARGV[i + 3] then same = false end
end
if same then return 1 end
for i = 1, #ARGV, 4 do
  local v = redis.call('HGET', KEYS[tonumber(ARGV[i])], ARGV[i + 1]) or ''
  if v ~= ARGV[i + 2] then return 0 end
end
for i = 1, #ARGV, 4 do redis.call('HSET', KEYS[tonumber(ARGV[i])], ARGV[i + 1], ARGV[i + 3]) end
return 1`);

/**
 * hits, window in milliseconds, the hit's own token: 0 when it is admitted, else the milliseconds until the earliest one
 * leaves. A sorted set of tokens by the microsecond of Redis' own clock, so that api processes need not agree on the time;
 * never more than \`hits\` of them, since one goes for each that comes, and none once a window has passed without any. A hit
 * that was sent twice, because its first reply was lost, finds its token: it counts once.
 *
 * A clock that was set back (a replica that took over has another) goes on from the latest hit as if it stood still, so that
 * none leaves too early; back by more than a window, the hits are of a time that will not come for long, and are forgotten.
 */
export const HIT = script(false, ALLOW_OOM, `
local most, window = tonumber(ARGV[1]), ARGV[2] * 1000
if redis.call('ZSCORE', KEYS[1], ARGV[3]) then return 0 end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local latest = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] or '0')
if latest > now + window then redis.call('UNLINK', KEYS[1])
elseif latest > now then now = latest end
if redis.call('ZCARD', KEYS[1]) >= most then
  local left = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] + window - now
  if left > 0 then return math.ceil(left / 1000) end
  redis.call('ZPOPMIN', KEYS[1])
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 0`);

// ---- reading -----------------------------------------------------------------------------------------------------------

/** What every read of a shard begins with: role, position, lineage, number, stage, torn, entries. */
const HEAD = `local head = redis.call('HMGET', KEYS[1], 'role', 'pos', 'lin', 'n', 'stage', 'torn', 'ents')`;

/** Documents in the order of the keys, in one snapshot: the names of the keys behind the head's. */
export const LOAD = script(true, HEAD, `
local out = {head}
for i = 2, #KEYS, 1000 do
  local some = redis.call('MGET', unpack(KEYS, i, math.min(i + 999, #KEYS)))
  for j = 1, #some do out[#out + 1] = some[j] end
end
return out`);

/** space, from, to, number of first characters, limit: keys and documents in order; \`to\` empty for the space's end. */
export const SCAN_SPACE = script(true, TAG, HEAD, `
local space, from, to, width, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local top = T .. 'o' .. space
local first, last = string.sub(from, 1, width), string.sub(to, 1, width)
local names, keys = {}, {}
for _, part in ipairs(redis.call('ZRANGE', top, '[' .. first, to == '' and '+' or '[' .. last, 'BYLEX', 'LIMIT', 0, limit + 1)) do
  local low, high = '-', '+'
  if part == first then low = '[' .. string.sub(from, width + 1) end
  if to ~= '' and part == last then high = '(' .. string.sub(to, width + 1) end
  for _, rest in ipairs(redis.call('ZRANGE', top .. '/' .. part, low, high, 'BYLEX', 'LIMIT', 0, limit - #keys)) do
    names[#names + 1] = part .. rest
    keys[#keys + 1] = T .. 'd' .. space .. '/' .. part .. rest
  end
  if #keys >= limit then break end
end
local values = #keys == 0 and {} or redis.call('MGET', unpack(keys))
return {head, names, values}`);

/** cursor, prefix of documents' keys, count: the next cursor, then key and document of those found. */
export const WALK_SLICE = script(true, HEAD, `
local found = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[3])
local out = {head, found[1]}
for _, key in ipairs(found[2]) do
  if string.sub(key, 1, #ARGV[2]) == ARGV[2] then
    local v = redis.call('GET', key)
    if v then
      out[#out + 1] = string.sub(key, #ARGV[2] + 1)
      out[#out + 1] = v
    end
  end
end
return out`);

/** workspace, lineage, number: the days that commits after that number touched; all of them to a reader of another lineage. */
export const OPEN_SEARCH = script(true, TAG, HEAD, `
if head[3] == ARGV[2] then
  if head[4] == ARGV[3] then return {head, {}} end
  local days = redis.call('ZRANGE', T .. 'V' .. ARGV[1], '(' .. ARGV[3], '+inf', 'BYSCORE')
  local out = {}
  for i = 1, #days, 1000 do
    local last = math.min(i + 999, #days)
    local some = redis.call('HMGET', T .. 'D' .. ARGV[1], unpack(days, i, last))
    for j = i, last do
      out[#out + 1] = days[j]
      out[#out + 1] = some[j - i + 1]
    end
  end
  return {head, out}
end
return {head, redis.call('HGETALL', T .. 'D' .. ARGV[1])}`);

/** workspace, number: the days that later commits touched. */
export const MOVED_DAYS = script(true, TAG, HEAD, `return {head, redis.call('ZRANGE', T .. 'V' .. ARGV[1], '(' .. ARGV[2], '+inf', 'BYSCORE')}`);

const POSTING = `
local function posting(seg, id)
  local first, last = string.byte(id, 1), string.byte(id, 8)
  if last % 2 == 0 then
    local v = redis.call('HGET', T .. string.format('l%x.%x', seg, first % ${LIST_BUCKETS[0]}), id)
    if not v then v = redis.call('HGET', T .. string.format('m%x.%x', seg, first % ${LIST_BUCKETS[1]}), id) end
    if v ~= '' then return v end
  end
  return redis.call('GET', T .. string.format('b%x.', seg) .. id)
end
local function row(seg, ordinal)
  return redis.call('HGET', T .. string.format('r%x.%x', seg, math.floor(ordinal / ${ROWS_BLOCK})), ordinal % ${ROWS_BLOCK})
end
local function keyOf(v) return string.sub(v, 12, 11 + struct.unpack('<I2', v, 10)) end`;

/**
 * Packed: prefix of documents, postings [segment, term …], pages [segment, page …], then per block of rows [segment, block,
 * ordinal within it as text …]: each in its order; rows, then, if there is a prefix, as many documents. Documents that pass
 * through a script cost Redis ten times what an MGET of them does: they are read so only where one snapshot is needed.
 */
export const FETCH = script(true, TAG, HEAD, POSTING, `
local wanted = cmsgpack.unpack(ARGV[1])
local postings, pages, rows, names, documents = {}, {}, {}, {}, {}
local p = wanted[2]
for i = 1, #p, 2 do postings[#postings + 1] = posting(p[i], p[i + 1]) end
p = wanted[3]
for i = 1, #p, 2 do pages[#pages + 1] = redis.call('GET', T .. string.format('c%x.%x', p[i], p[i + 1])) end
local n = 0
for b = 4, #wanted do
  p = wanted[b]
  local some = redis.call('HMGET', T .. string.format('r%x.%x', p[1], p[2]), unpack(p, 3))
  for i = 1, #some do
    n = n + 1
    rows[n] = some[i]
  end
end
if wanted[1] ~= '' and n > 0 then
  for i = 1, n do names[i] = T .. 'd' .. wanted[1] .. (rows[i] and keyOf(rows[i]) or '') end
  documents = redis.call('MGET', unpack(names))
end
return {head, postings, pages, rows, documents}`);

const LOCATORS = `
local levels = 0
while levels < ${LEVELS_MAX} and tonumber(head[7] or 0) > ${BUCKETS * BUCKET_ENTRIES} * 16 ^ levels do levels = levels + 1 end
local function locators(id)
  local found = {}
  for level = 0, levels do
    local key = bucket(level, id)
    local v = redis.call('HGET', key, id)
    if v and #v ~= 5 then found[#found + 1] = v
    elseif v then
      for part = 0, struct.unpack('<I4', v, 2) do found[#found + 1] = redis.call('GET', key .. '.' .. id .. '.' .. part) or '' end
    end
  end
  return table.concat(found)
end`;

/** Packed ids: each one's locators. */
export const LOCATE = script(true, TAG, HEAD, BUCKET, LOCATORS, `
local out = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[1])) do out[i] = locators(id) end
return {head, out}`);

/** id, prefix of documents, at most: the rows of a keyed term, each followed by its document; nothing when there are more. */
export const KEYED_ROWS = script(true, TAG, HEAD, BUCKET, LOCATORS, POSTING, `
local all = locators(ARGV[1])
if #all > 6 * ARGV[3] then return {head} end
local rows = {}
for i = 1, #all, 6 do
  local seg, ordinal = struct.unpack('<I4I2', all, i)
  local v = row(seg, ordinal)
  rows[#rows + 1] = v
  rows[#rows + 1] = v and redis.call('GET', T .. 'd' .. ARGV[2] .. keyOf(v))
end
return {head, rows}`);

/** Packed ids of records: each one's locator and row, or two nils. */
export const READ_ROWS = script(true, TAG, HEAD, BUCKET, LOCATORS, POSTING, `
local out = {}
for i, id in ipairs(cmsgpack.unpack(ARGV[1])) do
  local all = locators(id)
  out[2 * i - 1] = false
  out[2 * i] = false
  if #all >= 6 then
    out[2 * i - 1] = string.sub(all, 1, 6)
    out[2 * i] = row(struct.unpack('<I4I2', all))
  end
end
return {head, out}`);
