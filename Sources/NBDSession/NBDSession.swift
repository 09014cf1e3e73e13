// NBDSession
