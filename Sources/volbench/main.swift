// volbench
