"""What the HTTP application and each request carry, by typed key."""

from collections import Counter

from aiohttp import web

from core.access import Actor
from modelyard.client import Client, Proxies
from modelyard.drain import Drain
from modelyard.gauges import Gauges
from modelyard.limits import RateLimiter
from modelyard.metrics import Metrics
from modelyard.services import Services

SERVICES = web.AppKey("services", Services)
METRICS = web.AppKey("metrics", Metrics)
GAUGES = web.AppKey("gauges", Gauges)
DRAIN = web.AppKey("drain", Drain)
PROXIES = web.AppKey("proxies", Proxies)

# Requests of somebody, requests of nobody by address, and failed logins by address.
ACTOR_LIMIT = web.AppKey("actor_limit", RateLimiter)
ADDRESS_LIMIT = web.AppKey("address_limit", RateLimiter)
FAILURE_LIMIT = web.AppKey("failure_limit", RateLimiter)

# Requests in flight, by the same keys as the limits.
BUSY = web.AppKey("busy", Counter[str])

CLIENT = web.RequestKey("client", Client)
REQUEST_ID = web.RequestKey("request_id", str)
ACTOR = web.RequestKey("actor", Actor)
RATE_HEADERS = web.RequestKey("rate_headers", dict[str, str])


def client_of(request: web.Request) -> Client:
    """Who sent the request, and how they called us."""
    return request[CLIENT]


def base_url(request: web.Request) -> str:
    """Scheme, host, port and prefix for absolute URLs in this answer, without a final slash."""
    return request[CLIENT].base_url
