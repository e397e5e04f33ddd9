# CUTLASS and CuTe, headers out of the PyPI wheel beside Torch's (requirements-cuda.txt).
if(HESPER_CUDA)
  set(HESPER_CUTLASS_DIR "${site_packages}/cutlass_library/source/include" CACHE PATH "CUTLASS's include folder")
  if(NOT EXISTS ${HESPER_CUTLASS_DIR}/cutlass/cutlass.h)
    message(FATAL_ERROR "no CUTLASS in HESPER_CUTLASS_DIR=${HESPER_CUTLASS_DIR}: run `make cuda`, or name the include folder of the wheel nvidia-cutlass")
  endif()
endif()
