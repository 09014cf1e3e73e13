// NBDWireTests
