-- The action of the URL on one of N objects, chosen at random: "/o/1/read" becomes "/o/<n>/read".
-- N is the script's argument (without one: a thousand).
local space, action, objects
function init(args)
   math.randomseed(42)
   space, action = wrk.path:match("^/([^/]+)/.*/([^/]+)$")
   objects = tonumber(args[1] or 1000)
end
function request()
   return wrk.format("GET", "/" .. space .. "/" .. math.random(0, objects - 1) .. "/" .. action)
end
