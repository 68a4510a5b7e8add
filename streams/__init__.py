"""The wiring: Faust, with an offset tracker of our own under it, carries records to the agents and their events on."""
