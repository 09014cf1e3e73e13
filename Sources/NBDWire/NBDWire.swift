// NBDWire
