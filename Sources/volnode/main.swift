// volnode
