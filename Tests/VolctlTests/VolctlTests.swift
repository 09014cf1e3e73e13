// Tests of volctl.
