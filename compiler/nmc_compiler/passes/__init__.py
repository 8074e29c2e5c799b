"""nmc_compiler.passes"""
