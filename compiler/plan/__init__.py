"""From a bound graph to kernel calls over memory."""
