-- Asks for one of as many keys as the argument says, the n-th as often as 1/n: what is drawn is
-- written down before the first request, so that drawing costs nothing while it counts.
local DRAWS = 262144
local requests, draws, place = {}, {}, 0

function init(arguments)
  local keys = tonumber(arguments[1])
  local sums, sum = {}, 0
  for key = 1, keys do
    sum = sum + 1 / key
    sums[key] = sum
    -- Which keys are the popular ones has nothing to do with the order in which they were stored.
    requests[key] = wrk.format("GET", "/key/" .. (key * 48271) % keys)
  end
  math.randomseed(20260101)
  for draw = 1, DRAWS do
    local wanted, low, high = math.random() * sum, 1, keys
    while low < high do
      local middle = math.floor((low + high) / 2)
      if sums[middle] < wanted then low = middle + 1 else high = middle end
    end
    draws[draw] = low
  end
end

function request()
  place = place % DRAWS + 1
  return requests[draws[place]]
end
