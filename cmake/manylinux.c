// glibc 2.32 says here whether a process has one thread, which headers of libstdc++ ask. An older one is taken to have more.
char __libc_single_threaded = 0;
