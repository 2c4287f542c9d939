-- Load for wrk: creates of distinct users. Writes the id of every answered session, and the latencies, to files.
--
-- Environment: LOAD_PORTS (one thread each), LOAD_TOKENS (a file, one token a line), LOAD_STATUS (the one that counts as
-- success), LOAD_KEY (of the session's id in the answer), LOAD_PREFER (a header, may be empty), LOAD_OFFSET (the first
-- user), LOAD_OUT (prefix of the files).

local ports, threads = {}, {}
for port in string.gmatch(os.getenv("LOAD_PORTS"), "%d+") do ports[#ports + 1] = port end

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
  thread:set("of", #ports)
  thread.addr = wrk.lookup("127.0.0.1", ports[(#threads - 1) % #ports + 1])[1]
end

local users, position, answers = {}, 0, nil
local expected = tonumber(os.getenv("LOAD_STATUS"))
local pattern = '"' .. os.getenv("LOAD_KEY") .. '":"([%x-]+)"'
local prefer = os.getenv("LOAD_PREFER")
answered, wrong = 0, 0

function init()
  local n = 0
  for token in io.lines(os.getenv("LOAD_TOKENS")) do
    n = n + 1
    if n % of == number % of then users[#users + 1] = token end  -- no two threads send the same user
  end
  position = tonumber(os.getenv("LOAD_OFFSET")) % #users
  answers = io.open(os.getenv("LOAD_OUT") .. ".ids." .. number, "w")
end

function request()
  position = position % #users + 1
  local headers = { ["Content-Type"] = "application/json", Authorization = "Bearer " .. users[position] }
  if prefer ~= "" then headers.Prefer = prefer end
  local body = string.format(
    '{"package":"family-%d","step":"details","data":{"adults":2,"children":%d,"coupon":"SPRING","newsletter":false}}',
    position % 7, position % 4)
  return wrk.format("POST", "/api/sessions", headers, body)
end

function response(status, headers, body)
  local id = status == expected and string.match(body, pattern)
  if id then
    answered = answered + 1
    answers:write(id, "\n")
  else
    wrong = wrong + 1
    if wrong < 4 then io.stderr:write(status, " ", body, "\n") end
  end
end

function done(summary, latency)
  local errors, good, bad = summary.errors, 0, 0
  for _, thread in ipairs(threads) do
    good = good + thread:get("answered")
    bad = bad + thread:get("wrong")
  end
  local file = io.open(os.getenv("LOAD_OUT") .. ".latencies", "w")
  file:write(string.format("%d %d %d %d %d %d\n", summary.duration, summary.requests, good, bad, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
  for n = 1, #latency do
    local value, count = latency(n)
    file:write(string.format("%d %d\n", value, count))
  end
  file:close()
end
