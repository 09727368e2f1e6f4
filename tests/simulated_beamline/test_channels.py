"""Process variables as a client of the server sees them, and what they leave in its memory."""

import asyncio
import gc

from caproto import EventAddResponse
from caproto.asyncio.client import Context as Client

from mistral_txm.simulated_beamline.channels import double
from mistral_txm.simulated_beamline.loopback import LOOPBACK, LoopbackContext, bind_loopback

UPDATES = 100


def test_updates_that_were_sent_do_not_pile_up_in_the_server(monkeypatch):
    async def run():
        channel = double()
        listener = bind_loopback(0)
        listener.listen()
        monkeypatch.setenv("EPICS_CA_ADDR_LIST", LOOPBACK)
        monkeypatch.setenv("EPICS_CA_AUTO_ADDR_LIST", "NO")
        monkeypatch.setenv("EPICS_CA_SERVER_PORT", str(listener.getsockname()[1]))
        started, came = asyncio.Event(), asyncio.Queue()

        async def on_start(_library):
            started.set()

        async def note(_subscription, response):
            await came.put(float(response.data[0]))

        serving = asyncio.create_task(
            LoopbackContext({"X": channel}, listener).run(startup_hook=on_start)
        )
        await started.wait()
        client = Client()
        (pv,) = await client.get_pvs("X")
        await pv.wait_for_connection()
        subscription = pv.subscribe()
        subscription.add_callback(note)
        seen = [await came.get()]
        for number in range(1, UPDATES):
            await channel.write(float(number))
            seen.append(await came.get())
        kept = sum(type(each) is EventAddResponse for each in gc.get_objects())
        await subscription.clear()
        await client.disconnect()
        serving.cancel()
        await serving
        return seen, kept

    seen, kept = asyncio.run(asyncio.wait_for(run(), 60))
    assert seen == list(range(UPDATES))
    assert kept < UPDATES / 4
