"""Joins a router, tries what an application would do, and says who it was: one JSON object on the last line.

usage: autobahn_peer.py URL AUTHENTICATION, where AUTHENTICATION is a component's "authentication" as JSON
"""

import asyncio
import json
import sys

from autobahn.asyncio.component import Component, run
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import CallOptions, PublishOptions, RegisterOptions, SubscribeOptions

url = sys.argv[1]
transport = {"type": "websocket", "url": url, "max_retries": 0}
if url.startswith("rs:"):
    host, port = url.removeprefix("rs://").split(":")
    endpoint = {"type": "tcp", "host": host, "port": int(port)}
    transport |= {"type": "rawsocket", "endpoint": endpoint, "serializer": "cbor"}
component = Component(
    transports=[transport],
    realm="realm1",
    authentication=json.loads(sys.argv[2]),
)


async def try_calls(session):
    callers = []

    async def add(a, b, details=None):
        callers.append(details.caller_authid)
        return a + b

    async def count(to, details=None):
        for number in range(to):
            details.progress(number)
        return "done"

    async def fail():
        raise ApplicationError("re.error.refused", "no", code=7)

    options = RegisterOptions(details_arg="details")
    registration = await session.register(add, "re.peer.add", options)
    await session.register(count, "re.peer.count", options)
    await session.register(fail, "re.peer.fail")
    assert await session.call("re.peer.add", 2, 3) == 5
    assert callers == [session.authid], callers

    partial = []
    options = CallOptions(on_progress=partial.append)
    assert await session.call("re.peer.count", 3, options=options) == "done"
    assert partial == [0, 1, 2], partial

    for procedure, expected in [
        ("re.peer.fail", "re.error.refused"),
        ("re.peer.nobody", "wamp.error.no_such_procedure"),
    ]:
        try:
            await session.call(procedure)
        except ApplicationError as error:
            assert error.error == expected, error
        else:
            raise AssertionError(procedure)

    await registration.unregister()
    assert await session.call("wamp.session.count") == 1


async def try_events(session):
    heard = asyncio.Queue()

    def on_event(*args, details=None):
        heard.put_nowait((args, details))

    keep = PublishOptions(acknowledge=True, exclude_me=False, retain=True)
    kept = await session.publish("re.peer.state", b"\x00\xff", 1.5, options=keep)
    options = SubscribeOptions(match="prefix", get_retained=True, details_arg="details")
    subscription = await session.subscribe(on_event, "re.peer.", options)
    args, details = await heard.get()
    assert args == (b"\x00\xff", 1.5) and details.retained, (args, details)
    assert details.publication == kept.id and details.topic == "re.peer.state"

    published = await session.publish("re.peer.news", "hot", options=PublishOptions(acknowledge=True, exclude_me=False))
    args, details = await heard.get()
    assert args == ("hot",) and details.publication == published.id
    assert not details.retained and details.publisher_authid == session.authid
    await subscription.unsubscribe()


@component.on_join
async def joined(session, details):
    try:
        await asyncio.wait_for(try_calls(session), 20)
        await asyncio.wait_for(try_events(session), 20)
        print(json.dumps({"authid": details.authid, "authrole": details.authrole, "authmethod": details.authmethod}))
    except BaseException as error:
        print(json.dumps({"failed": repr(error)}))
    sys.stdout.flush()
    await session.leave()


run([component], log_level="error")
