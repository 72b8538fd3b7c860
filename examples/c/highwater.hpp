/*
 * highwater.hpp: what highwater.h hands out, as C++17 objects that give it back.
 *
 * Copy it into your program: it is one header, and nothing of it is in the library. A handle can be moved and not copied.
 * A call that fails throws highwater::Error with the text of hw_last_error(); a refusal is no failure.
 */
#ifndef HIGHWATER_HPP
#define HIGHWATER_HPP

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>

#include <highwater.h>

namespace highwater {

struct Error : std::runtime_error {
    Error() : std::runtime_error(hw_last_error()) {}
};

inline void check(int result)
{
    if (result == -1)
        throw Error();
}

/* The limits of the surroundings. */
inline hw_limits detect()
{
    hw_limits limits = HW_LIMITS_INIT;
    check(hw_limits_detect(&limits));
    return limits;
}

template <auto Free>
struct Deleter {
    template <typename T>
    void operator()(T *handle) const noexcept { Free(handle); }
};

/* Leave for work. At the end of its life everything that was declared can be seen by a check from now on. */
class Permit {
public:
    explicit Permit(hw_permit *permit) noexcept : permit_(permit) {}

    /* False: refused, and hw_last_error() says why. */
    explicit operator bool() const noexcept { return permit_ != nullptr; }

    /* The work has ended, and nothing of it is left: its room is free at once. */
    void finish() noexcept { hw_permit_finish(permit_.release()); }

    /* The work is this child, and everything below it. */
    void attach(pid_t child) { check(hw_permit_attach(permit_.get(), child)); }

private:
    std::unique_ptr<hw_permit, Deleter<hw_permit_free>> permit_;
};

/* Stopped and freed at the end of its life: join the threads that use it before. */
class Monitor {
public:
    explicit Monitor(const hw_limits &limits, const hw_settings &settings = HW_SETTINGS_INIT)
        : monitor_(hw_monitor_new_with(&limits, &settings))
    {
        if (!monitor_)
            throw Error();
    }

    void start(std::chrono::milliseconds interval)
    {
        check(hw_monitor_start(monitor_.get(), static_cast<uint64_t>(interval.count())));
    }

    /* Ends every wait for a permit. */
    void stop() noexcept { hw_monitor_stop(monitor_.get()); }

    bool is_accepting_work() const noexcept { return hw_is_accepting_work(monitor_.get()); }

    std::string verdict() const
    {
        std::string text(hw_verdict(monitor_.get(), nullptr, 0, nullptr), '\0');
        hw_verdict(monitor_.get(), text.data(), text.size() + 1, nullptr);
        return text;
    }

    /* Waits for room. */
    Permit admit(const hw_work &work, std::chrono::milliseconds timeout)
    {
        return Permit(hw_admit(monitor_.get(), &work, static_cast<uint64_t>(timeout.count())));
    }

private:
    std::unique_ptr<hw_monitor, Deleter<hw_monitor_free>> monitor_;
};

} // namespace highwater

#endif
