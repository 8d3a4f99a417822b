"""`kubectl lethe restore begin | status | end`: what an engineer types around a restore, at any hour.

Whatever it prints ends with what to type next. It reads and writes RestoreEvents alone, by the caller's
kubectl; all that follows is the operator's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lethe.cli.callers_kubectl import Exit, Kubectl, Refused
from lethe.domain.labels import label_selector

Object = Mapping[str, Any]

POLL_SECONDS = 1.0
REASONS = ("NaturalDisaster", "SecurityBreach", "Drill")
OTHER_WAYS = {
    "role": "who connects as a role of spec.gate (once its server answers)",
    "networkPolicy": "whom the NetworkPolicy of spec.gate leaves out",
    "cnpgPooler": "who comes through a Pooler of spec.gate",
}
OVER = ("SafeToServe", "NothingCameBack", "Released", "Superseded", "Expired")
ASKS = ("IdentityUnclear", "HeldRowsReturned", "AwaitingRelease", "Stalled")


def add_to(commands: Any) -> None:
    """Add the command to the plugin's parser."""
    restore = commands.add_parser("restore", help="say that a restore begins or ends, or see where it stands")
    verbs = restore.add_subparsers(required=True, metavar="begin|status|end")
    begin = verbs.add_parser("begin", help="close the gate and let Lethe let go of the database")
    begin.add_argument("--store", required=True, help="name of the DataStore")
    begin.add_argument("--reason", required=True, choices=REASONS, help="why there is a restore")
    begin.add_argument(
        "--justification", required=True, help="what happened, in a sentence; no personal data"
    )
    begin.add_argument("--name", help="name of the RestoreEvent; made up if absent")
    begin.add_argument("--timeout", type=float, default=60, help="seconds to wait for Lethe (60)")
    begin.set_defaults(act=_begin)
    status = verbs.add_parser("status", help="where it stands, and what to type next")
    status.add_argument("--store", help="name of the DataStore; all of the namespace if absent")
    status.set_defaults(act=_status)
    end = verbs.add_parser("end", help="say that the restore has ended: Lethe looks at once")
    end.add_argument("--store", required=True, help="name of the DataStore")
    end.add_argument("--name", help="the RestoreEvent, where several have begun")
    end.set_defaults(act=_end)
    for verb in (status, end):
        verb.add_argument(
            "--wait", action="store_true", help="follow it until it is over, or asks for a person"
        )
        verb.add_argument("--timeout", type=float, help="seconds to follow it at the most")
    for verb in (begin, status, end):
        verb.add_argument("-n", "--namespace", help="namespace of the DataStore; kubectl's own if absent")


class _Kubectl(Kubectl):
    """The caller's kubectl, for DataStores and RestoreEvents."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        super().__init__(
            parsed.namespace,
            reads="the verbs get and list on datastores.lethe.dev and restoreevents.lethe.dev",
            writes="the verbs create, patch and declare on restoreevents.lethe.dev (docs/install.md)",
        )

    def world(self) -> tuple[dict[str, Object], list[Object]]:
        """Return the DataStores by name, and the RestoreEvents, newest first."""
        answer = json.loads(self.run("get", "datastores.lethe.dev,restoreevents.lethe.dev", "-o", "json"))
        stores = {one["metadata"]["name"]: one for one in answer["items"] if one["kind"] == "DataStore"}
        events = [one for one in answer["items"] if one["kind"] == "RestoreEvent"]
        return stores, sorted(events, key=lambda one: str(one["metadata"]["creationTimestamp"]), reverse=True)

    def served(self, store: Object) -> list[bool] | None:
        """Tell of each pod behind the gate of a store whether it is let in; `None`: nobody can tell."""
        if "podSelector" not in (store["spec"].get("gate") or {}):
            return None
        try:
            pods = json.loads(self.run("get", "pods", "--selector", _labels(store), "-o", "json"))["items"]
        except Refused:
            return None
        return [_condition(pod, "lethe.dev/safe-to-serve").get("status") == "True" for pod in pods]

    def gate_of(self, store: Object) -> str:
        """Say whom the gate of a store keeps out, as far as that can be told."""
        gate, said = store["spec"].get("gate") or {}, list[str]()
        if "podSelector" in gate:
            served, pods = self.served(store), f"pods with {_labels(store)}"
            if served is None:
                said.append(f"whether {pods} are out of service can't be told: you may not list pods")
            else:
                said.append(f"{served.count(False)} of {len(served)} {pods} are out of service")
        said += [f"{word} is kept out besides" for field, word in OTHER_WAYS.items() if field in gate]
        return "; ".join(said) or "nobody is kept out: the DataStore has no spec.gate"


# begin


def _begin(parsed: argparse.Namespace) -> Exit:
    kubectl = _Kubectl(parsed)
    stores, events = kubectl.world()
    store = _store_named(parsed.store, stores)
    if store["spec"].get("owner") == "ThirdParty":
        message = (
            f"DataStore {parsed.store} is a third party's (spec.owner): Lethe neither looks into it nor "
            "keeps pods from it, so there is nothing to begin"
        )
        raise Refused(message, Exit.NO_STORE)
    begun = _begun(events, parsed.store)
    if begun:
        named = begun[0]["metadata"]["name"]
        message = (
            f"a restore of {parsed.store} has begun already, {_since(begun[0])} (RestoreEvent {named}). See "
            f"it with\n  kubectl lethe restore status{kubectl.at} --store {parsed.store}"
        )
        raise Refused(message, Exit.NOT_NOW)
    name = parsed.name or f"restore-{parsed.store}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    spec = {
        "store": parsed.store,
        "reason": parsed.reason,
        "justification": parsed.justification,
        "underway": "Begun",
    }
    kubectl.create("lethe.dev/v1alpha1", "RestoreEvent", name, spec=spec)
    _say(f"RestoreEvent {name} says that a restore of {parsed.store} begins. Waiting for Lethe …")
    until = time.monotonic() + parsed.timeout
    while not _let_go(kubectl, parsed.store):
        if time.monotonic() > until:
            _say(f"""
Lethe has not closed the gate and let go within {parsed.timeout:.0f} s. What does it say, and does it run?
  {kubectl.prefix} describe dstore {parsed.store}
  kubectl -n lethe-system get pods
RestoreEvent {name} stays, and counts as soon as Lethe sees it. Until then take the
site out of service by hand, before you restore anything.""")
            return Exit.NO_ANSWER
        time.sleep(POLL_SECONDS)
    _say("Done: the gate is closed, and Lethe has no session in the database and opens none.")
    _say(f"  {kubectl.gate_of(store)}")
    for one in events:
        if _is_about(one, parsed.store) and _lacks_reason(one) and _state(one) in OVER:
            _say(f"  Lethe had found an earlier restore by itself, {_since(one)}. If you know why, say so:")
            _say(f"    {_declare(kubectl, one)}")
    _say(f"\nNow restore the database. Then type\n  {_end_command(kubectl, parsed.store)}")
    return Exit.FINE


def _let_go(kubectl: _Kubectl, name: str) -> bool:
    """Tell whether Lethe says that it has let go of a store, and every pod is out that can be asked for."""
    store = kubectl.world()[0].get(name, {"spec": {}})
    ready = _condition(store, "Ready").get("reason")
    return ready == "RestoreUnderway" and not any(kubectl.served(store) or ())


# end


def _end(parsed: argparse.Namespace) -> Exit:
    kubectl = _Kubectl(parsed)
    stores, events = kubectl.world()
    _store_named(parsed.store, stores)
    begun = [e for e in _begun(events, parsed.store) if parsed.name in (None, e["metadata"]["name"])]
    ended = [e for e in events if _is_about(e, parsed.store) and e["spec"].get("underway") == "Ended"]
    if len(begun) > 1:
        lines = "".join(f"\n  {_end_command(kubectl, parsed.store, e['metadata']['name'])}" for e in begun)
        raise Refused(f"several restores of {parsed.store} have begun; end each:{lines}", Exit.NOT_NOW)
    if begun:
        name = begun[0]["metadata"]["name"]
        ended_now = json.dumps({"spec": {"underway": "Ended"}})
        kubectl.run("patch", "restoreevents.lethe.dev", name, "--type=merge", "--patch", ended_now)
        _say(f"RestoreEvent {name} says that the restore of {parsed.store} has ended. Lethe looks now.")
    elif ended and parsed.name in (None, ended[0]["metadata"]["name"]):
        _say(f"It has ended already, says RestoreEvent {ended[0]['metadata']['name']}.")
    else:
        message = (
            f"no restore of {parsed.store} has begun, so there is none to end. Lethe finds by itself what "
            f"nobody told it of:\n  kubectl lethe restore status{kubectl.at} --store {parsed.store}"
        )
        raise Refused(message, Exit.NOT_NOW)
    if parsed.wait:
        return _follow(parsed, kubectl)
    _say(f"\nFollow it with\n  kubectl lethe restore status{kubectl.at} --store {parsed.store} --wait")
    return Exit.FINE


# status


def _status(parsed: argparse.Namespace) -> Exit:
    kubectl = _Kubectl(parsed)
    if parsed.wait:
        return _follow(parsed, kubectl)
    stores, events = kubectl.world()
    chosen = {parsed.store: _store_named(parsed.store, stores)} if parsed.store else stores
    codes = [_show(kubectl, store, events) for _, store in sorted(chosen.items())]
    if not codes:
        raise Refused("there is no DataStore in this namespace; name it with -n", Exit.NO_STORE)
    return max(codes)


def _follow(parsed: argparse.Namespace, kubectl: _Kubectl) -> Exit:
    """Say each change in a line, until it is over or asks for a person; then all of it."""
    until, said = time.monotonic() + (parsed.timeout or float("inf")), list[str]()
    while True:
        stores, events = kubectl.world()
        chosen = {parsed.store: _store_named(parsed.store, stores)} if parsed.store else stores
        opened = {name: _open(events, name) for name in sorted(chosen)}
        waiting = [name for name in opened if _code(chosen[name], opened[name]) is Exit.CLOSED]
        late = time.monotonic() > until
        if not waiting or late:
            worst = max((_show(kubectl, chosen[name], events) for name in opened), default=Exit.NO_STORE)
            return Exit.NO_ANSWER if late and waiting else worst
        news = [f"{name}: {_waits_for(chosen[name], opened[name])}" for name in waiting]
        for line in news:
            if line not in said:
                _say(f"{datetime.now(UTC):%H:%M:%S}Z  {line}")
        said = news
        time.sleep(POLL_SECONDS)


def _show(kubectl: _Kubectl, store: Object, events: Sequence[Object]) -> Exit:
    """Print where a store stands; return the exit code that says it."""
    name = store["metadata"]["name"]
    mine = [event for event in events if _is_about(event, name)]
    opened, safe = _open(events, name), _condition(store, "SafeToServe")
    code = _code(store, opened)
    gate = "OPEN" if _is_served(store) else "CLOSED" if safe else "not known yet"
    since = f" since {_moment(safe['lastTransitionTime'])}" if safe else ""
    _say(f"{name}: {gate}{since}  ({safe.get('reason', 'Pending')})")
    if code is not Exit.FINE:
        _say(f"  {kubectl.gate_of(store)}")
    for event in opened or mine[:1]:
        _say("")
        for line in _told(event):
            _say(f"  {line}")
    _say("")
    for line in _next(kubectl, store, opened, mine):
        _say(f"  {line}")
    _say("")
    return code


def _told(event: Object) -> Iterator[str]:
    spec, status = event["spec"], event.get("status") or {}
    why = f": {spec['justification']}" if spec.get("justification") else ""
    yield f"RestoreEvent {event['metadata']['name']}  {_state(event)}"
    yield f"  {spec['reason']}{why}"
    began = "begun" if "underway" in spec else "found" if spec["reason"] == "Undeclared" else "declared"
    copy = status.get("restoredFrom") or {}
    snapshot = f" ({copy['snapshot']})" if "snapshot" in copy else ""
    moments = [
        (copy.get("takenAt"), "the moment to which it went back" + snapshot),
        (event["metadata"]["creationTimestamp"], began),
        (status.get("safeToServeAt"), "safe to serve"),
    ]
    for moment, what in sorted((at, what) for at, what in moments if at):
        yield f"  {_moment(moment)}  {what}"
    yield from _counts(status)
    if _state(event) not in OVER:
        ready = _condition(event, "Ready")
        since = f" since {_moment(ready['lastTransitionTime'])}" if ready else ""
        yield f"  waits{since}:"
        message = str(ready.get("message", "Lethe has not seen it yet; does it run?"))
        yield from textwrap.wrap(message, 96, initial_indent=4 * " ", subsequent_indent=4 * " ")


def _counts(status: Object) -> Iterator[str]:
    replay = status.get("replay")
    if not replay:
        return
    words = {
        "missing": "were missing",
        "reErased": "made again",
        "leftAlone": "left alone",
        "unclear": "unclear",
    }
    yield f"  erasures: {', '.join(f'{replay[name]} {word}' for name, word in words.items())}"
    tables = replay.get("tables", ())
    width = max((len(one["table"]) for one in tables), default=0)
    for one in tables:
        yield f"    {one['table']:<{width}}  {one['rows']:>8} rows cleared or deleted again"
    if replay["leftAlone"]:
        alike = replay.get("sameAddress", 0)
        also = f"; {alike} of them with the same address" if alike else ""
        yield f"    left alone: rows under erased keys that are somebody else's by now{also}"
    if replay.get("neverFound"):
        yield f"    {replay['neverFound']} addresses can't be looked for again here; a copy may hold them"
    unclear = status.get("unclear", ())
    for one in unclear[:8]:
        yield f"    unclear: {one['table']} {one['key']}"
    if len(unclear) > 8:
        yield f"    … and {replay['unclear'] - 8} more: in status.unclear"


def _next(
    kubectl: _Kubectl, store: Object, opened: Sequence[Object], mine: Sequence[Object]
) -> Iterator[str]:
    """Yield what to type next."""
    name = store["metadata"]["name"]
    begun = [event for event in opened if event["spec"].get("underway") == "Begun"]
    follow = f"kubectl lethe restore status{kubectl.at} --store {name} --wait"
    if begun:
        yield "NEXT  restore the database; once it is back:"
        for event in begun:
            yield f"  {_end_command(kubectl, name, event['metadata']['name'] if len(begun) > 1 else None)}"
        return
    asking = [event for event in opened if _state(event) in ASKS]
    if asking:
        yield from _decide(kubectl, store, asking[0])
        return
    safe = _condition(store, "SafeToServe")
    if opened or (safe and not _is_served(store)):
        yield "NEXT  nothing to do but wait; to follow it:"
        yield f"  {follow}"
        return
    undeclared = [event for event in mine if _lacks_reason(event)]
    for event in undeclared:
        yield f"NEXT  say why there was a restore ({event['metadata']['name']}):"
        yield f"  {_declare(kubectl, event)}"
    if mine and _state(mine[0]) == "NothingCameBack":
        yield "NEXT  was it this database? If not, its Secret may lead to another one than you restored:"
        yield f"  {kubectl.prefix} describe dstore {name}"
    elif safe.get("reason") == "Released" and safe.get("status") != "True":
        yield "NEXT  the glass was broken, and erased people may be served: see the runbook LetheGlassBroken"
    elif not undeclared:
        yield "NEXT  nothing: every erasure is in place" if mine else "NEXT  nothing: no restore is known"


def _decide(kubectl: _Kubectl, store: Object, event: Object) -> Iterator[str]:
    name, state, status = event["metadata"]["name"], _state(event), event.get("status") or {}
    patch = f"{kubectl.prefix} patch revent {name} --type=merge -p"
    # By its uid where not all is verified: that breaks the glass, and takes a verb of its own.
    glass = "with its uid" in str(_condition(event, "Ready").get("message"))
    uid = {"uid": event["metadata"]["uid"]} if glass else {}
    release = f"{patch} {_spec({'release': {**uid, 'because': 'WHY'}})}"
    if state == "IdentityUnclear":
        said = list(event["spec"].get("identities", ()))
        # The API server refuses it until a person has chosen: whoever pastes it as it is erases nobody.
        asked = [
            {**row, "decision": "Erase|LeaveAlone"} for row in status.get("unclear", ())[: 64 - len(said)]
        ]
        yield "NEXT  look whose these rows are, and choose for each: Erase (the erased person) or LeaveAlone:"
        yield f"  {patch} {_spec({'identities': [*said, *asked]})}"
    elif state == "HeldRowsReturned":
        yield "NEXT  ask counsel: lift what preserves these persons' data, or break the glass:"
        yield f"  {release}"
    elif state == "AwaitingRelease":
        yield "NEXT  let it be served:"
        yield f"  {release}"
    else:
        yield "NEXT  correct the mapping, until it fits what was restored:"
        yield f"  {kubectl.prefix} edit dstore {store['metadata']['name']}"


# what objects say


def _store_named(name: str, stores: Mapping[str, Object]) -> Object:
    if name in stores:
        return stores[name]
    there = f"there are: {', '.join(sorted(stores))}" if stores else "there is none"
    message = f"DataStore {name} does not exist in this namespace (-n names another); {there}"
    raise Refused(message, Exit.NO_STORE)


def _is_about(event: Object, store: str) -> bool:
    return bool(event["spec"]["store"] == store)


def _lacks_reason(event: Object) -> bool:
    """Tell whether nobody has said why there was a restore; where nothing came, there was none."""
    return bool(event["spec"]["reason"] == "Undeclared" and _state(event) != "Expired")


def _is_served(store: Object) -> bool:
    """Tell whether a store's gate is open: all is verified, or a person broke the glass."""
    safe = _condition(store, "SafeToServe")
    return safe.get("status") == "True" or safe.get("reason") == "Released"


def _begun(events: Sequence[Object], store: str) -> list[Object]:
    return [e for e in events if _is_about(e, store) and e["spec"].get("underway") == "Begun"]


def _open(events: Sequence[Object], store: str) -> list[Object]:
    """Return the RestoreEvents of a store that are not over; a mere declaration has not begun."""
    over = (*OVER, "Declared")
    return [e for e in events if _is_about(e, store) and _state(e) not in over]


def _code(store: Object, opened: Sequence[Object]) -> Exit:
    begun = any(event["spec"].get("underway") == "Begun" for event in opened)
    if any(_state(event) in ASKS for event in opened) and not begun:
        return Exit.ASKS
    safe = _is_served(store) and not opened
    third = store["spec"].get("owner") == "ThirdParty"
    return Exit.FINE if safe or third else Exit.CLOSED


def _waits_for(store: Object, opened: Sequence[Object]) -> str:
    for one in opened:
        return f"{_state(one)}: {_condition(one, 'Ready').get('message', 'waits for Lethe to see it')}"
    safe = _condition(store, "SafeToServe") or _condition(store, "Ready")
    return f"{safe.get('reason', 'Pending')}: {safe.get('message', 'not looked at yet')}"


def _condition(thing: Object, kind: str) -> Object:
    conditions = (thing.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == kind), {})


def _state(event: Object) -> str:
    return str((event.get("status") or {}).get("state", "Pending"))


def _labels(store: Object) -> str:
    """Return which pods a store's gate keeps out, as kubectl's --selector takes it."""
    return label_selector(store["spec"].get("gate", {}).get("podSelector", {}))


def _since(event: Object) -> str:
    return f"since {_moment(event['metadata']['creationTimestamp'])}"


def _moment(text: str) -> str:
    """Return a moment as a person reads it, with how long ago it was."""
    then = datetime.fromisoformat(text)
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{then:%Y-%m-%d %H:%M:%S}Z ({seconds // size} {unit} ago)"
    return f"{then:%Y-%m-%d %H:%M:%S}Z ({seconds} s ago)"


def _end_command(kubectl: _Kubectl, store: str, event: str | None = None) -> str:
    named = f" --name {event}" if event else ""
    return f"kubectl lethe restore end{kubectl.at} --store {store}{named} --wait"


def _declare(kubectl: _Kubectl, event: Object) -> str:
    spec = _spec({"reason": "|".join(REASONS), "justification": "WHAT HAPPENED"})
    return f"{kubectl.prefix} patch revent {event['metadata']['name']} --type=merge -p {spec}"


def _spec(spec: Any) -> str:
    """Return a patch of a spec, quoted for a shell."""
    return shlex.quote(json.dumps({"spec": spec}, separators=(",", ":")))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
