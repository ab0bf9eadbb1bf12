"""A telephone by PJSIP that insists on reliable provisional responses (RFC 3262).

Its arguments: user, password, PBX, own address, and whom it calls; it hangs up after a second.
"""

import sys
import time

import pjsua2 as pj

user, password, pbx, own, callee = sys.argv[1:]


def run(is_done, seconds=15):
    end = time.monotonic() + seconds
    while not is_done() and time.monotonic() < end:
        endpoint.libHandleEvents(10)


endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.uaConfig.threadCnt = 0
config.uaConfig.mainThreadOnly = True
endpoint.libInit(config)
transport = pj.TransportConfig()
transport.boundAddress = transport.publicAddress = own
endpoint.transportCreate(pj.PJSIP_TRANSPORT_UDP, transport)
endpoint.audDevManager().setNullDev()
endpoint.libStart()

config = pj.AccountConfig()
config.idUri = f"sip:{user}@{pbx}"
config.regConfig.registrarUri = f"sip:{pbx}"
config.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", user, 0, password))
config.callConfig.prackUse = pj.PJSUA_100REL_MANDATORY
config.mediaConfig.transportConfig.boundAddress = own
account = pj.Account()
account.create(config)
run(lambda: account.getInfo().regIsActive)

call = pj.Call(account)
call.makeCall(f"sip:{callee}@{pbx}", pj.CallOpParam(True))
run(lambda: call.getInfo().state == pj.PJSIP_INV_STATE_CONFIRMED)
run(lambda: False, 1)
call.hangup(pj.CallOpParam(True))
run(lambda: not call.isActive())
del call, account
endpoint.libDestroy()
