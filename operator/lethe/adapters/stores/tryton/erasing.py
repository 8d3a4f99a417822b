"""Erases one family of parties: Tryton's own wizard, and then what the wizard leaves behind.

1. make the parties inactive, which the wizard demands; what it refuses becomes active again;
2. delete what is kept as files: the wizard drops the rows without queueing the files for removal;
3. run the wizard `party.erase`;
4. overwrite the second copies that it leaves (`value_compact`, `code_compact`), delete languages (promise
   P1: locale), sent e-mails and chats.

Tryton has no transaction over several calls. Each step may be repeated, and a family of which anything is
left is taken through all of them again.
"""

from __future__ import annotations

from lethe.adapters.stores.tryton.jsonrpc import CallRefused, JsonRpc
from lethe.adapters.stores.tryton.records import ERASED, IDENTIFIER, MECHANISM, PARTY, Family
from lethe.ports.stores import AnswerUntrusted, StoreUnreachable

_BY_RPC = ("ir.email", "ir.chat.channel")
"""What the wizard does not know to be a person's."""


def erase_family(rpc: JsonRpc, family: Family) -> None:
    """Erase what is uncleared in a family. Raises `CallRefused`, `StoreUnreachable`, `AnswerUntrusted`."""
    active = [party.id for party in family.parties if party.active]
    if active:
        rpc.call(f"model.{PARTY}.write", active, {"active": False}, {})
    try:
        for model, ids in family.files.items():
            rpc.call(f"model.{model}.delete", list(ids), {})
        _run_wizard(rpc, family.root.id)
    except CallRefused:
        if active:
            # A customer who may not be erased yet must not be a customer switched off.
            rpc.call(f"model.{PARTY}.write", active, {"active": True}, {})
        raise
    _overwrite_copies(rpc, family)
    for party in family.parties:
        if party.languages:
            rpc.call(f"model.{PARTY}.write", [party.id], {"langs": [["delete", list(party.languages)]]}, {})
    for model in _BY_RPC:
        if hanging := family.resources.get(model):
            rpc.call(f"model.{model}.delete", list(hanging), {})


def try_wizard(rpc: JsonRpc) -> None:
    """Open the wizard and close it again, which shows that the user may run it. Raises as `erase_family`."""
    session = _open_wizard(rpc)
    rpc.call("wizard.party.erase.delete", session, {})


def _open_wizard(rpc: JsonRpc) -> int:
    answer = rpc.call("wizard.party.erase.create", {"active_model": PARTY})
    if not isinstance(answer, list) or not answer or not isinstance(answer[0], int):
        raise AnswerUntrusted("the answer to opening the wizard party.erase is not Tryton's")
    return answer[0]


def _run_wizard(rpc: JsonRpc, party: int) -> None:
    session = _open_wizard(rpc)
    context = {"active_model": PARTY, "active_id": party, "active_ids": [party]}
    try:
        rpc.call("wizard.party.erase.execute", session, {"ask": {"party": party}}, "erase", context)
    finally:
        try:
            rpc.call("wizard.party.erase.delete", session, {})
        except (CallRefused, StoreUnreachable, AnswerUntrusted):
            pass  # it holds nothing but the party's id


def _overwrite_copies(rpc: JsonRpc, family: Family) -> None:
    mechanisms = [mechanism for mechanism in family.mechanisms if not mechanism.clear]
    if mechanisms:
        # Writing the value makes Tryton compute `value_compact` from it again.
        values = {"type": "other", "value": ERASED, "name": None, "comment": None}
        rpc.call(f"model.{MECHANISM}.write", [one.id for one in mechanisms], values, {})
    for mechanism in mechanisms:
        if mechanism.languages:
            languages = {"languages": [["delete", list(mechanism.languages)]]}
            rpc.call(f"model.{MECHANISM}.write", [mechanism.id], languages, {})
    if family.uncleared_identifiers:
        values = {"type": None, "code": ERASED}
        rpc.call(f"model.{IDENTIFIER}.write", list(family.uncleared_identifiers), values, {})
