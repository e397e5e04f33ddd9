# LibTorch out of the PyPI wheel, without find_package(Torch), which fails with CMake 3.25 beside a CUDA toolkit.
if(NOT EXISTS ${HESPER_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch in HESPER_TORCH_DIR=${HESPER_TORCH_DIR}: run `make setup`, or name the torch folder of a virtual environment")
endif()
add_library(torch_wheel INTERFACE)
target_include_directories(torch_wheel SYSTEM INTERFACE
  ${HESPER_TORCH_DIR}/include ${HESPER_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(torch_wheel INTERFACE ${HESPER_TORCH_DIR}/lib/libtorch_cpu.so ${HESPER_TORCH_DIR}/lib/libc10.so)
target_link_options(torch_wheel INTERFACE -Wl,-rpath,${HESPER_TORCH_DIR}/lib)
find_package(OpenMP REQUIRED)
