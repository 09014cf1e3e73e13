// volctl
