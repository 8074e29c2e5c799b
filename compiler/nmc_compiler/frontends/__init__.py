"""nmc_compiler.frontends"""
