"""A telephone by PJSIP, driven by lines of JSON; see wire.py.

Its one argument is JSON: user, password, pbx (address), says (WAV), own (address), transport, codecs,
ca (whom to trust over TLS, or null), srtp (mandatory, optional, a suite that is, or null).
"""

import json
import queue
import sys
import threading

import pjsua2 as pj
from wire import orders, tell


class Call(pj.Call):
    def __init__(self, phone, *args):
        super().__init__(phone.account, *args)
        self.phone = phone
        self.sound = None

    def onCallState(self, _):
        now = self.getInfo()
        if now.state == pj.PJSIP_INV_STATE_EARLY:
            tell(event="ringing", status=now.lastStatusCode)
        elif now.state == pj.PJSIP_INV_STATE_CONFIRMED:
            tell(event="established", peer=now.remoteUri)
        elif now.state == pj.PJSIP_INV_STATE_DISCONNECTED:
            sent, received = self.phone.packets
            reason = f"{now.lastStatusCode} {now.lastReason}"
            tell(event="closed", reason=reason, sent=sent, received=received)
            self.phone.over.append(self)
            self.phone.call = None

    def onCallMediaState(self, _):
        now = self.getInfo()  # kept by name: its vector lives no longer than it does
        for index, media in enumerate(now.media):
            if media.type != pj.PJMEDIA_TYPE_AUDIO:
                continue
            words = {
                pj.PJSUA_CALL_MEDIA_ACTIVE: "sounding",
                pj.PJSUA_CALL_MEDIA_LOCAL_HOLD: "held",
                pj.PJSUA_CALL_MEDIA_REMOTE_HOLD: "remote_held",
            }
            if media.status == pj.PJSUA_CALL_MEDIA_ACTIVE:
                self.sound = self.getAudioMedia(index)
                self.phone.player.startTransmit(self.sound)
                # What nobody listens to piles up in the jitter buffer.
                self.sound.startTransmit(self.phone.endpoint.audDevManager().getPlaybackDevMedia())
                if self.phone.recorder is not None:
                    self.sound.startTransmit(self.phone.recorder)
            else:
                self.sound = None
            if media.status in words:
                tell(event=words[media.status])

    def onStreamDestroyed(self, param):
        stats = self.getStreamStat(param.streamIdx).rtcp
        self.phone.packets = (stats.txStat.pkt, stats.rxStat.pkt)

    def onDtmfDigit(self, param):
        tell(event="dtmf", digit=param.digit)


class Account(pj.Account):
    def __init__(self, phone):
        super().__init__()
        self.phone = phone

    def onIncomingCall(self, param):
        self.phone.call = Call(self.phone, param.callId)
        ringing = pj.CallOpParam()
        ringing.statusCode = pj.PJSIP_SC_RINGING
        self.phone.call.answer(ringing)
        tell(event="incoming", peer=self.phone.call.getInfo().remoteUri)

    def onRegState(self, param):
        expires = self.getInfo().regExpiresSec
        word = "registered" if expires > 0 else "unregistered"
        tell(event=word if param.code == 200 else "refused", status=param.code)


class Telephone:
    def __init__(self, wanted):
        self.pbx, own, transport = wanted["pbx"], wanted["own"], wanted["transport"]
        self.suffix = "" if transport == "udp" else f";transport={transport}"
        self.call = None
        self.over = []
        self.packets = (0, 0)
        self.recorder = None
        self.endpoint = self.start(own, transport, wanted["codecs"], wanted["ca"])
        self.player = pj.AudioMediaPlayer()
        self.player.createPlayer(wanted["says"])
        config = pj.AccountConfig()
        config.idUri = f"sip:{wanted['user']}@{self.pbx}"
        config.regConfig.registrarUri = f"sip:{self.pbx}{self.suffix}"
        config.regConfig.registerOnAdd = False
        login = pj.AuthCredInfo("digest", "*", wanted["user"], 0, wanted["password"])
        config.sipConfig.authCreds.append(login)
        media = config.mediaConfig.transportConfig
        media.boundAddress = media.publicAddress = own
        media.port = 0
        uses = {None: pj.PJMEDIA_SRTP_DISABLED, "optional": pj.PJMEDIA_SRTP_OPTIONAL}
        config.mediaConfig.srtpUse = uses.get(wanted["srtp"], pj.PJMEDIA_SRTP_MANDATORY)
        if wanted["srtp"] not in (None, "optional", "mandatory"):
            suite = pj.SrtpCrypto()
            suite.name = wanted["srtp"]
            config.mediaConfig.srtpOpt.cryptos.append(suite)
        config.mediaConfig.srtpSecureSignaling = 0
        self.account = Account(self)
        self.account.create(config)

    def start(self, own, transport, codecs, ca):
        endpoint = pj.Endpoint()
        endpoint.libCreate()
        config = pj.EpConfig()
        config.logConfig.level = config.logConfig.consoleLevel = 5
        config.uaConfig.threadCnt = 0
        config.uaConfig.mainThreadOnly = True
        config.medConfig.clockRate = config.medConfig.sndClockRate = 8000
        config.medConfig.ecTailLen = 0
        config.medConfig.noVad = True
        endpoint.libInit(config)
        address = pj.TransportConfig()
        address.port = 0
        address.boundAddress = address.publicAddress = own
        if transport == "tls":
            address.tlsConfig.CaListFile = ca
            address.tlsConfig.verifyServer = True
            address.tlsConfig.method = pj.PJSIP_TLSV1_2_METHOD
        kinds = {
            "udp": pj.PJSIP_TRANSPORT_UDP,
            "tcp": pj.PJSIP_TRANSPORT_TCP,
            "tls": pj.PJSIP_TRANSPORT_TLS,
        }
        kind = kinds[transport]
        number = endpoint.transportCreate(kind, address)
        self.address = endpoint.transportGetInfo(number).localName
        endpoint.audDevManager().setNullDev()
        endpoint.libStart()
        for codec in endpoint.codecEnum2():
            name = codec.codecId.split("/")[0].lower()
            place = 200 - codecs.index(name) if name in codecs else 0
            endpoint.codecSetPriority(codec.codecId, place)
        return endpoint

    def listen(self):
        self.stop_listening()
        self.recorder = pj.AudioMediaRecorder()
        self.recorder.createRecorder(self.recording)
        if self.call is not None and self.call.sound is not None:
            self.call.sound.startTransmit(self.recorder)

    def stop_listening(self):
        if self.recorder is not None:
            if self.call is not None and self.call.sound is not None:
                self.call.sound.stopTransmit(self.recorder)
            self.recorder = None
            # The bridge lets go of it, and the file is whole, only a while later.
            for _ in range(20):
                self.endpoint.libHandleEvents(10)

    def obey(self, order):
        unchanged = pj.CallOpParam(True)
        match order["do"]:
            case "register":
                self.account.setRegistration(True)
            case "unregister":
                self.account.setRegistration(False)
            case "dial":
                self.call = Call(self)
                self.call.makeCall(f"sip:{order['to']}@{self.pbx}{self.suffix}", unchanged)
            case "answer":
                unchanged.statusCode = pj.PJSIP_SC_OK
                self.call.answer(unchanged)
            case "reject":
                unchanged.statusCode = pj.PJSIP_SC_BUSY_HERE
                self.call.hangup(unchanged)
            case "hold":
                self.call.setHold(unchanged)
            case "resume":
                unchanged.opt.flag = pj.PJSUA_CALL_UNHOLD
                self.call.reinvite(unchanged)
            case "dtmf":
                self.call.dialDtmf(order["digits"])
            case "hangup":
                self.call.hangup(unchanged)
            case "listen":
                self.recording = order["to"]
                self.listen()
            case "heard":
                self.stop_listening()
            case other:
                raise ValueError(other)

    def run(self):
        todo = queue.Queue()

        def read():
            for order in orders():
                todo.put(order)
            todo.put(None)

        threading.Thread(target=read, daemon=True).start()
        tell(event="ready", address=self.address)
        while True:
            self.endpoint.libHandleEvents(10)
            self.over.clear()
            try:
                order = todo.get_nowait()
            except queue.Empty:
                continue
            if order is None:
                break
            try:
                self.obey(order)
                tell(done=order["do"])
            except (pj.Error, AttributeError, ValueError) as error:
                reason = error.info() if isinstance(error, pj.Error) else repr(error)
                tell(failed=f"{order['do']}: {reason}")
        self.stop_listening()
        self.call = None
        self.account.shutdown()
        del self.account, self.player
        self.endpoint.libDestroy()


Telephone(json.loads(sys.argv[1])).run()
