// Lets a CPU build of torch switch to CUDA devices that are not there: autograd does, of fake tensors too.
#include <c10/core/impl/DeviceGuardImplInterface.h>

C10_REGISTER_GUARD_IMPL(CUDA, c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>);
