// OpenSSL with memory BIOs: the ring does the I/O, OpenSSL only the cryptography.
#pragma once
