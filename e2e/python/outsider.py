"""Another producer, and an observer: a program with a NATS client and a CloudEvents SDK that nobody here wrote.

It publishes an order in the flat first-generation form and another as a CloudEvent, pays both from outside, publishes one
poison message, and watches: both orders must be confirmed, the poison must come out as a dead letter, and everything that
the shop says about orders must be a CloudEvent. Ends with status 0 and a line of JSON, or with what was not so.

It also asks over NATS: the services must be discoverable, and must answer as they do over HTTP.

    outsider.py NATS_URL ORDER_SERVICE_URL RUN
"""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from datetime import datetime, timezone

import nats
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import REQUIRED_ATTRIBUTES, CloudEvent

DEADLINE_SECS = 60


def flat(event_type, **data):
    """The first generation: one flat document."""
    head = {
        "event_id": str(uuid.uuid4()),
        "event_type": event_type,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "version": 1,
    }
    return json.dumps(head | data).encode()


def cloud_event(event_type, subject, data):
    """A CloudEvent as the SDK writes it."""
    attributes = {
        "id": str(uuid.uuid4()),
        "source": "https://outsider.example.com/orders",
        "type": event_type,
        "subject": subject,
        "time": datetime.now(timezone.utc),
        "datacontenttype": "application/json",
    }
    return JSONFormat().write(CloudEvent(attributes, data))


def usd(minor):
    return {"minor": minor, "currency": "USD"}


def order_status(url, order_id):
    try:
        with urllib.request.urlopen(f"{url}/orders/{order_id}", timeout=5) as answer:
            return json.load(answer)["status"]
    except urllib.error.HTTPError as error:
        if error.code in (404, 503):
            return None
        raise


async def until(what, ask):
    """Asks until the answer is true."""
    deadline = time.monotonic() + DEADLINE_SECS
    while time.monotonic() < deadline:
        answer = await ask()
        if answer:
            return answer
        await asyncio.sleep(0.05)
    sys.exit(f"not within {DEADLINE_SECS} s: {what}")


def check_cloud_event(message):
    """Fails unless the official SDK takes the message for a CloudEvent, and its subject says the same as the event."""
    written = json.loads(message.data)
    for name in REQUIRED_ATTRIBUTES:  # the SDK would make some of them up
        if not written.get(name):
            sys.exit(f"{message.subject} has no {name}: {message.data!r}")
    event = JSONFormat().read(CloudEvent, message.data)  # raises if it is none
    entity, kind, entity_id, _version = message.subject.split(".")
    if event.get_type() != f"{entity}.{kind}" or event.get_subject() != entity_id:
        sys.exit(f"{message.subject} holds {event.get_type()} about {event.get_subject()}")
    if not isinstance(event.get_data(), dict):
        sys.exit(f"{message.subject} has no data")
    if message.headers.get("Nats-Msg-Id") is None or message.headers["content-type"] != "application/cloudevents+json":
        sys.exit(f"{message.subject} has the headers {message.headers}")


async def check_queries(client, order_id):
    """Fails unless `order.get` and `stock.get` answer, refuse what is unknown, and are NATS services."""
    for subject, body in (("order.get", {"id": order_id}), ("stock.get", {"id": "lamp"})):
        answer = await client.request(subject, json.dumps(body).encode(), timeout=5)
        if body["id"] not in json.loads(answer.data).values() or "Nats-Service-Error" in (answer.headers or {}):
            sys.exit(f"{subject} {body} is answered {answer.data!r}, {answer.headers}")
    answer = await client.request("order.get", b'{"id":"nothing"}', timeout=5)
    if answer.headers["Nats-Service-Error-Code"] != "404" or json.loads(answer.data)["status"] != 404:
        sys.exit(f"an unknown order is answered {answer.data!r}, {answer.headers}")
    wanted = {"order-service": {"order.get", "user.get"}, "payment-service": {"account.get"}}
    wanted |= {"consumer-inventory": {"stock.get"}}
    for service, subjects in wanted.items():
        info = json.loads((await client.request(f"$SRV.INFO.{service}", b"", timeout=5)).data)
        if {endpoint["subject"] for endpoint in info["endpoints"]} != subjects:
            sys.exit(f"{service} says of itself {info}")


async def main(nats_url, order_service, run):
    client = await nats.connect(nats_url)
    about_orders, dead_letters = [], []

    async def saw(message):
        (about_orders if message.subject.startswith("order.") else dead_letters).append(message)

    await client.subscribe("order.>", cb=saw)
    await client.subscribe("dlq.events.>", cb=saw)
    await client.flush()

    one, other = f"{run}-flat", f"{run}-cloud"
    poison = f"poison of {run}: not even JSON \x00".encode()
    email = f"{run}@example.com"
    item = {"product_id": "lamp", "product_name": "Lamp", "quantity": 2}

    order = {"order_id": one, "customer_id": run, "customer_email": email}
    items = [item | {"price": 50.0}]
    await client.publish("order.placed", flat("OrderPlaced", **order, items=items, total_amount=100.0))
    await client.publish("order.placed", poison)
    order = {"order_id": other, "customer_id": run, "customer_email": email}
    items = [item | {"unit_price": usd(1999)}]
    data = order | {"items": items, "total": usd(3998), "payment_method": {"type": "external"}}
    await client.publish(f"order.placed.{other}", cloud_event("order.placed", other, data))

    paid = {"payment_id": f"{one}-paid", "order_id": one, "amount": 100.0}
    paid |= {"payment_method": "credit_card", "status": "SUCCESS"}
    await client.publish("payment.processed", flat("PaymentProcessed", **paid))
    paid = {"payment_id": f"{other}-paid", "order_id": other, "amount": usd(3998)}
    paid |= {"payment_method": {"type": "external", "method": "paypal"}, "status": "SUCCESS"}
    await client.publish("payment.processed", cloud_event("payment.processed", paid["payment_id"], paid))
    await client.flush()

    for order_id in (one, other):

        async def confirmed(order_id=order_id):
            return await asyncio.to_thread(order_status, order_service, order_id) == "Confirmed"

        await until(f"{order_id} is confirmed", confirmed)

        async def heard(order_id=order_id):
            return {f"order.placed.{order_id}.1", f"order.confirmed.{order_id}.2"} <= {m.subject for m in about_orders}

        await until(f"a subscriber of order.> hears of {order_id}", heard)

    await check_queries(client, one)

    async def dead():
        return [message for message in dead_letters if message.data == poison]

    (letter,) = await until("a subscriber of dlq.events.> sees the poison", dead)
    if letter.subject != "dlq.events.order-service.order.placed":
        sys.exit(f"the poison came out on {letter.subject}")

    stored = [message for message in about_orders if message.subject.count(".") == 3]
    for message in stored:
        check_cloud_event(message)
    await client.close()
    print(json.dumps({"orders": [one, other], "cloud_events": len(stored), "dead_letters": len(dead_letters)}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
