// ULX3S (Radiona, LFE5U-85F): serial line over the board's FTDI chip, button PWR resets. LED 0 is on while the device
// works, LED 1 while it is not in reset.
module ulx3s_top #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 32768,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 2,
    parameter int Y = 2,
    parameter logic [31:0] CLOCK = 32'd80_000_000,
    parameter logic [31:0] RATE = 32'd1510,
    parameter logic [63:0] BUILD = 64'd0,
    // of the PLL: 25 MHz * CLKFB_DIV / CLKI_DIV is the clock, that times CLKOP_DIV its oscillator
    parameter int CLKI_DIV = 5,
    parameter int CLKFB_DIV = 16,
    parameter int CLKOP_DIV = 8
) (
    input  logic       clk_25mhz,
    input  logic       btn_pwr_n,
    input  logic       ftdi_txd,    // named as the FTDI chip sees it
    output logic       ftdi_rxd,
    output logic       wifi_gpio0,  // low would let the ESP32 take the board over
    output logic [7:0] led
);
  logic clk, locked, rst, active;

  assign wifi_gpio0 = 1'b1;
  assign led = {6'd0, !rst, active};

  (* ICP_CURRENT = "12", LPF_RESISTOR = "8" *)
  EHXPLLL #(
      .PLLRST_ENA("DISABLED"),
      .INTFB_WAKE("DISABLED"),
      .STDBY_ENABLE("DISABLED"),
      .DPHASE_SOURCE("DISABLED"),
      .OUTDIVIDER_MUXA("DIVA"),
      .CLKOP_ENABLE("ENABLED"),
      .CLKOP_DIV(CLKOP_DIV),
      .CLKOP_CPHASE(CLKOP_DIV - 1),
      .CLKOP_FPHASE(0),
      .FEEDBK_PATH("CLKOP"),
      .CLKI_DIV(CLKI_DIV),
      .CLKFB_DIV(CLKFB_DIV)
  ) pll (
      .RST(1'b0),
      .STDBY(1'b0),
      .CLKI(clk_25mhz),
      .CLKFB(clk),
      .CLKINTFB(),
      .PHASESEL0(1'b0),
      .PHASESEL1(1'b0),
      .PHASEDIR(1'b1),
      .PHASESTEP(1'b1),
      .PHASELOADREG(1'b1),
      .PLLWAKESYNC(1'b0),
      .ENCLKOP(1'b0),
      .CLKOP(clk),
      .LOCK(locked)
  );

  nc_reset start (
      .clk,
      .steady(locked),
      .button(!btn_pwr_n),
      .rst
  );

  nc_top #(
      .N(N),
      .A(A),
      .W(W),
      .TYPES(TYPES),
      .GEOMS(GEOMS),
      .X(X),
      .Y(Y),
      .CLOCK(CLOCK),
      .RATE(RATE),
      .BUILD(BUILD)
  ) device (
      .clk,
      .rst,
      .rx(ftdi_txd),
      .tx(ftdi_rxd),
      .active
  );
endmodule
