# A toolchain for wheels that install wherever torch's do, on glibc 2.28 and newer, from a machine with a newer one: gcc compiles;
# Zig's linker, which knows the symbols of each glibc, links. libstdc++ goes into the extension, since that of an old system lacks
# what this gcc's needs. ZIG names the program, MANYLINUX_PREFIX gcc's for another machine ("aarch64-linux-gnu-").
set(prefix "$ENV{MANYLINUX_PREFIX}")
if(prefix)
  string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR "${prefix}")
  set(CMAKE_SYSTEM_NAME Linux)
  set(machine "${CMAKE_SYSTEM_PROCESSOR}")
else()
  set(machine "${CMAKE_HOST_SYSTEM_PROCESSOR}")
endif()
set(CMAKE_CXX_COMPILER "${prefix}g++")

foreach(library IN ITEMS libstdc++.a libgcc_s.so.1 libgcc.a)
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=${library}
    OUTPUT_VARIABLE path OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(APPEND runtime " ${path}")
endforeach()
string(CONCAT CMAKE_CXX_CREATE_SHARED_MODULE
  "$ENV{ZIG} cc -target ${machine}-linux-gnu.2.28 -shared -o <TARGET> <OBJECTS> ${CMAKE_CURRENT_LIST_DIR}/manylinux.c"
  " -Wl,--version-script=${CMAKE_CURRENT_LIST_DIR}/manylinux.map -Wl,--gc-sections -Wl,-u,__cxa_pure_virtual -s${runtime}")
