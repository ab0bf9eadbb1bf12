"""Real telephones register, are listed, leave, and are still known after a restart."""

import pytest
from pbx import password
from phone import hears
from process import eventually
from test_calls import connect


def contacts(pbx):
    return {row["user"]: row["contacts"] for row in pbx.ask("phones") if row["contacts"]}


@pytest.mark.parametrize("kind", ["baresip", "pjsua"])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_phone_registers_and_leaves(pbx, start_phone, kind, transport):
    phone = start_phone(kind, pbx, "1001", transport=transport)
    found = contacts(pbx)
    assert list(found) == ["1001"]
    (contact,) = found["1001"]
    assert contact["flow"].startswith(transport)
    assert contact["expires_s"] > 0
    phone.do("unregister")
    eventually(lambda: not contacts(pbx))


def test_registrations_survive_a_restart(pbx, start_phone):
    caller = start_phone("pjsua", pbx, "1001")
    callee = start_phone("baresip", pbx, "1002")
    before = contacts(pbx)
    assert pbx.stop() == 0
    pbx.start()
    after = contacts(pbx)
    assert after.keys() == before.keys()
    for user, rows in before.items():
        assert [row["contact"] for row in rows] == [row["contact"] for row in after[user]]
    connect(caller, callee)
    hears(callee, caller, 1)
    caller.hang_up()
    callee.wait("closed")


def test_registrations_survive_a_crash(pbx, start_phone):
    start_phone("pjsua", pbx, "1001")
    eventually(lambda: pbx.status()["store"]["queued"] == 0)
    pbx.process.kill()
    pbx.start()
    assert list(contacts(pbx)) == ["1001"]


def test_too_many_phones_of_one_user(start_pbx, start_phone, scratch):
    pbx = start_pbx(users=("1002",), more=f'[user.1001]\npassword = "{password("1001")}"\nmax_contacts = 1')
    start_phone("pjsua", pbx, "1001")
    second = start_phone("pjsua", pbx, "1001", register=False)
    second.do("register")
    assert second.wait("refused")["status"] == 403
    assert len(contacts(pbx)["1001"]) == 1
