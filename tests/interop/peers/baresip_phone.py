"""A telephone by baresip, driven by lines of JSON; see wire.py.

Its one argument is JSON: user, password, pbx (address), says (WAV), transport, codecs,
ca (whom to trust over TLS, or null), srtp (mandatory, optional or null).
"""

import asyncio
import json
import sys
import threading
import wave

from baresip import Account, Config
from baresip.errors import BaresipError
from baresip.events import Event
from baresip.runtime import Runtime
from baresip.ua import UserAgent
from wire import orders, tell

FRAME = 320  # 20 ms of 16-bit samples at 8 kHz
AHEAD = 10 * FRAME


class Telephone:
    def __init__(self, agent, pbx, says, transport):
        # A connection that is there is used only where the address says so.
        self.suffix = ";transport=tls" if transport == "tls" else ""
        self.agent = agent
        self.pbx = pbx
        self.says = says
        self.call = None
        self.heard = bytearray()
        self.at = 0
        # Not at the call: a quick 180 is here before its call object is.
        agent.on(self.on_event)

    def take(self, call):
        self.call = call
        call.on_dtmf(lambda digit: tell(event="dtmf", digit=digit.digit))

    def on_incoming(self, call):
        self.take(call)
        tell(event="incoming")

    def on_event(self, event):
        words = {
            Event.CALL_RINGING: "ringing",
            Event.CALL_PROGRESS: "progress",
            Event.CALL_ESTABLISHED: "established",
            Event.CALL_HOLD: "held",
            Event.CALL_RESUME: "resumed",
            Event.CALL_REMOTE_SDP: "remote_sdp",
        }
        if event.event is Event.CALL_CLOSED:
            packets = [event.stats.get(way, {}).get("packets", 0) for way in ("tx", "rx")]
            tell(event="closed", reason=event.text or "", sent=packets[0], received=packets[1])
            self.call = None
        elif event.event in words:
            tell(event=words[event.event], text=event.text or "", peer=event.peer or "")

    async def speak_and_listen(self):
        while True:
            await asyncio.sleep(0.01)
            if self.call is None:
                continue
            try:
                self.heard += self.call.audio.read(1 << 16)
                while self.call.audio.info().tx_buffered < AHEAD:
                    frame = (self.says * 2)[self.at : self.at + FRAME]
                    if self.call.audio.write(frame) < FRAME:
                        break
                    self.at = (self.at + FRAME) % len(self.says)
            except BaresipError:
                pass  # no sound yet, or other streams after a new offer

    async def obey(self, order):
        match order["do"]:
            case "register":
                await self.agent.register()
            case "unregister":
                await self.agent.unregister()
            case "dial":
                self.take(await self.agent.dial(f"sip:{order['to']}@{self.pbx}{self.suffix}"))
            case "answer":
                await self.call.answer()
            case "reject":
                await self.call.reject()
            case "hold":
                await self.call.hold()
            case "resume":
                await self.call.resume()
            case "dtmf":
                await self.call.send_dtmf(order["digits"])
            case "hangup":
                await self.call.hangup()
            case "listen":
                self.heard.clear()
            case "heard":
                with wave.open(order["to"], "wb") as file:
                    file.setnchannels(1)
                    file.setsampwidth(2)
                    file.setframerate(8000)
                    file.writeframes(bytes(self.heard))
            case other:
                raise ValueError(other)


async def main(wanted):
    with wave.open(wanted["says"]) as file:
        sound = file.readframes(file.getnframes())
    runtime = Runtime()
    trust = f"sip_cafile {wanted['ca']}\nsip_verify_server yes\n" if wanted["ca"] else ""
    await runtime.start(Config(net_interface="127.0.0.1", sip_trace=True, extra_config_text=trust))
    account = Account(
        wanted["user"],
        wanted["pbx"],
        wanted["password"],
        transport=wanted["transport"],
        audio_codecs=tuple(wanted["codecs"]),
        extra_params={
            None: (),
            "optional": ("mediaenc=srtp",),
            "mandatory": ("mediaenc=srtp-mand",),
        }[wanted["srtp"]],
    )
    agent = await UserAgent.create(runtime, account)
    phone = Telephone(agent, wanted["pbx"], sound, wanted["transport"])
    agent.on_incoming(phone.on_incoming)
    sounding = asyncio.create_task(phone.speak_and_listen())
    # A thread reads the orders, because the loop must keep the sound going.
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue()

    def read():
        for order in orders():
            loop.call_soon_threadsafe(queue.put_nowait, order)
        loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    tell(event="ready")
    while (order := await queue.get()) is not None:
        try:
            await phone.obey(order)
            tell(done=order["do"])
        except (BaresipError, AttributeError, OSError, ValueError) as error:
            tell(failed=f"{order['do']}: {error!r}")
    sounding.cancel()
    await runtime.close()


asyncio.run(main(json.loads(sys.argv[1])))
