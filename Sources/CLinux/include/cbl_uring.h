// io_uring, libaio, epoll and socket primitives that Swift cannot import.
#pragma once
