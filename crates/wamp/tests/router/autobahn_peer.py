"""Joins a router, tries what an application would do, and says who it was: one JSON object on the last line.

usage: autobahn_peer.py TRANSPORT AUTHENTICATION, a component's "transports" entry and its "authentication" as JSON
"""

import asyncio
import json
import sys

from autobahn.asyncio.component import Component, run
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallOptions, PublishOptions, RegisterOptions, SubscribeOptions

SOON = 20

component = Component(
    transports=[dict(json.loads(sys.argv[1]), max_retries=0)],
    realm="realm1",
    authentication=json.loads(sys.argv[2]),
)

# One value of each kind; JSON has bytes in a form of WAMP's own.
VALUES = ["text, 文字 and 🦀", -(2**63), 2**64 - 1, 0.1, -1e300, True, None, b"\x00\xff", [1, [], {"deep": [{}]}]]


async def refusal(request):
    try:
        await request
    except ApplicationError as error:
        return error
    raise AssertionError("no error")


async def try_calls(session):
    callers = []

    async def add(a, b, details=None):
        callers.append((details.caller, details.caller_authid, details.caller_authrole))
        return a + b

    async def echo(*args, **kwargs):
        return [list(args), kwargs]

    async def fail():
        raise ApplicationError("re.error.refused", "no", code=7)

    add_options = RegisterOptions(details_arg="details")
    registration = await session.register(add, "re.peer.add", add_options)
    await session.register(echo, "re.peer.echo")
    await session.register(fail, "re.peer.fail")
    assert await session.call("re.peer.add", 2, 3) == 5
    # The role of all principals here discloses its sessions.
    assert callers == [(session.session_id, session.authid, session.authrole)], callers
    assert await session.call("re.peer.echo", *VALUES, key=VALUES) == [VALUES, {"key": VALUES}]
    large = "x" * 1_000_000
    assert await session.call("re.peer.echo", large) == [[large], {}]
    numbers = await asyncio.gather(*[session.call("re.peer.echo", number) for number in range(500)])
    assert numbers == [[[number], {}] for number in range(500)]

    error = await refusal(session.call("re.peer.fail"))
    assert (error.error, error.args, error.kwargs) == ("re.error.refused", ("no",), {"code": 7}), error
    assert (await refusal(session.call("re.peer.nobody"))).error == "wamp.error.no_such_procedure"
    assert (await refusal(session.register(echo, "re.peer.echo"))).error == "wamp.error.procedure_already_exists"
    assert (await refusal(session.register(echo, "wamp.peer"))).error == "wamp.error.invalid_uri"

    await registration.unregister()
    assert (await refusal(session.call("re.peer.add", 2, 3))).error == "wamp.error.no_such_procedure"
    assert await session.call("wamp.session.count") == 1


async def try_progress(session):
    asked_for = []

    async def count(to, details=None):
        asked_for.append(details.progress is not None)
        for number in range(to):
            details.progress(number)
        return "done"

    await session.register(count, "re.peer.count", RegisterOptions(details_arg="details"))
    partial = []
    options = CallOptions(on_progress=partial.append)
    assert await session.call("re.peer.count", 500, options=options) == "done"
    assert partial == list(range(500)), partial
    assert await session.call("re.peer.count", 0) == "done"
    assert asked_for == [True, False], asked_for


async def try_cancelling(session):
    started, interrupted = asyncio.Queue(), asyncio.Queue()

    async def wait():
        try:
            started.put_nowait(True)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            interrupted.put_nowait(True)
            raise

    await session.register(wait, "re.peer.wait")
    call = session.call("re.peer.wait")
    await started.get()
    call.cancel()
    await interrupted.get()
    # In milliseconds.
    error = await refusal(session.call("re.peer.wait", options=CallOptions(timeout=50)))
    assert error.error == "wamp.error.timeout", error
    await interrupted.get()


async def try_patterns(session):
    async def which(details=None):
        return details.procedure

    await session.register(which, "re.any", RegisterOptions(match="prefix", details_arg="details"))
    await session.register(which, "re.any..end", RegisterOptions(match="wildcard", details_arg="details"))
    assert await session.call("re.any.thing") == "re.any.thing"
    assert await session.call("re.any.thing.end") == "re.any.thing.end"

    heard = asyncio.Queue()
    subscriptions = []
    for match, topic in [("exact", "re.tree.leaf"), ("prefix", "re.tr"), ("wildcard", "re..leaf")]:
        options = SubscribeOptions(match=match, details_arg="details")
        handler = lambda details, match=match: heard.put_nowait((match, details.publication, details.topic))
        subscriptions.append(await session.subscribe(handler, topic, options))
    all_of_us = PublishOptions(acknowledge=True, exclude_me=False)
    published = await session.publish("re.tree.leaf", options=all_of_us)
    events = sorted([await heard.get() for _ in subscriptions])
    assert events == [(match, published.id, "re.tree.leaf") for match in ("exact", "prefix", "wildcard")], events
    for subscription in subscriptions:
        await subscription.unsubscribe()
    await session.publish("re.tree.leaf", options=all_of_us)
    assert await session.call("wamp.subscription.lookup", "re.tree.leaf") is None
    assert heard.empty()


async def try_events(session):
    heard = asyncio.Queue()

    def on_event(*args, details=None, **kwargs):
        heard.put_nowait((list(args), kwargs, details))

    keep = PublishOptions(acknowledge=True, exclude_me=False, retain=True)
    kept = await session.publish("re.peer.state", *VALUES, options=keep)
    options = SubscribeOptions(match="prefix", get_retained=True, details_arg="details")
    subscription = await session.subscribe(on_event, "re.peer.", options)
    args, _, details = await heard.get()
    assert args == VALUES and details.retained, (args, details)
    assert details.publication == kept.id and details.topic == "re.peer.state"

    # None of these comes back; the one after them does.
    session.publish("re.peer.news", "to others")
    for nobody in [{"eligible": []}, {"exclude_authid": [session.authid]}, {"eligible_authrole": ["nobody"]}]:
        await session.publish("re.peer.news", options=PublishOptions(acknowledge=True, exclude_me=False, **nobody))
    published = await session.publish(
        "re.peer.news", "hot", key=VALUES, options=PublishOptions(acknowledge=True, exclude_me=False)
    )
    args, kwargs, details = await heard.get()
    assert (args, kwargs) == (["hot"], {"key": VALUES}), (args, kwargs)
    assert details.publication == published.id and not details.retained
    assert (details.publisher, details.publisher_authid) == (session.session_id, session.authid)
    await subscription.unsubscribe()

    await session.call("wamp.session.add_testament", "re.peer.news", ["gone"], {})
    assert await session.call("wamp.session.flush_testaments") == 1


@component.on_join
async def joined(session, details):
    try:
        for attempt in [try_calls, try_progress, try_cancelling, try_patterns, try_events]:
            await asyncio.wait_for(attempt(session), SOON)
        say({"authid": details.authid, "authrole": details.authrole, "authmethod": details.authmethod})
    except BaseException as error:
        say({"failed": repr(error)})
    await session.leave()


@component.on_leave
def left(session, details):
    if not said:
        say({"refused": details.reason})


said = []


def say(what):
    said.append(what)
    print(json.dumps(what), flush=True)


run([component], log_level="error")
