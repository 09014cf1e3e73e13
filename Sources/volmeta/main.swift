// volmeta
