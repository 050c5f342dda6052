-- The action of the URL on one of a thousand objects, chosen at random.
local action
function init(args)
   math.randomseed(42)
   action = wrk.path:match("([^/]+)$")
end
function request()
   return wrk.format("GET", "/o/" .. math.random(0, 999) .. "/" .. action)
end
