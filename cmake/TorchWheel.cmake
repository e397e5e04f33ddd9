# LibTorch out of the PyPI wheel, without find_package(Torch), which fails with CMake 3.25 beside a CUDA toolkit.
file(REAL_PATH ${HESPER_TORCH_DIR} torch BASE_DIRECTORY ${CMAKE_SOURCE_DIR})
if(NOT EXISTS ${torch}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch in HESPER_TORCH_DIR=${HESPER_TORCH_DIR}: run `make setup`, or name the torch folder of a virtual environment")
endif()
add_library(torch_wheel INTERFACE)
target_include_directories(torch_wheel SYSTEM INTERFACE ${torch}/include ${torch}/include/torch/csrc/api/include)
target_link_libraries(torch_wheel INTERFACE ${torch}/lib/libtorch_cpu.so ${torch}/lib/libc10.so)
set(CMAKE_BUILD_RPATH ${torch}/lib)
if(HESPER_CUDA)
  # Nothing calls libtorch_cuda.so by name (it registers its kernels when loaded), so the linker must be told to keep it.
  # Its own needs (cuBLAS, cuDNN, ..) are the wheel's dependencies: wanted where it runs, not where it is linked.
  target_link_libraries(torch_wheel INTERFACE
    "-Wl,--push-state,--no-as-needed,${torch}/lib/libtorch_cuda.so,${torch}/lib/libc10_cuda.so,--pop-state")
  target_link_options(torch_wheel INTERFACE -Wl,--allow-shlib-undefined)
  cmake_path(GET torch PARENT_PATH site_packages)
  list(APPEND CMAKE_BUILD_RPATH ${site_packages}/nvidia/cu13/lib)
endif()
set(CMAKE_INSTALL_RPATH ${CMAKE_BUILD_RPATH})
