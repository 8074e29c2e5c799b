// The device behind its two serial pins.
module nc_top #(
    parameter int N = 1024,
    parameter int A = 2048,
    parameter int W = 65536,
    parameter int TYPES = 16,
    parameter int GEOMS = 16,
    parameter int X = 1,
    parameter int Y = 1,
    parameter int LINE = 2048,
    parameter int LOG = 1024,
    parameter logic [31:0] CLOCK = 32'd48_000_000,
    parameter logic [31:0] RATE = 32'd2517,  // 115,200 baud at that clock
    parameter int RETURN = 1 << 26,
    parameter logic [63:0] BUILD = 64'd0
) (
    input  logic clk,
    input  logic rst,
    input  logic rx,
    output logic tx,
    output logic active  // a light
);
  logic in_valid, in_broken, in_ready, out_valid, out_ready;
  logic [7:0] in_data, out_data;
  logic [19:0] rate;
  logic at_work;

  assign active = at_work || !out_ready;

  nc_uart_rx receiver (
      .clk(clk),
      .rst(rst),
      .rx(rx),
      .rate(rate),
      .valid(in_valid),
      .data(in_data),
      .broken(in_broken)
  );

  nc_uart_tx transmitter (
      .clk(clk),
      .rst(rst),
      .rate(rate),
      .valid(out_valid),
      .data(out_data),
      .ready(out_ready),
      .tx(tx)
  );

  nc_top_bytes #(
      .N(N),
      .A(A),
      .W(W),
      .TYPES(TYPES),
      .GEOMS(GEOMS),
      .X(X),
      .Y(Y),
      .LINE(LINE),
      .LOG(LOG),
      .CLOCK(CLOCK),
      .RATE(RATE),
      .RETURN(RETURN),
      .BUILD(BUILD)
  ) device (
      .clk(clk),
      .rst(rst),
      .in_valid(in_valid),
      .in_broken(in_broken || (in_valid && !in_ready)),
      .in_data(in_data),
      .in_ready(in_ready),
      .out_valid(out_valid),
      .out_data(out_data),
      .out_ready(out_ready),
      .out_quiet(out_ready),
      .rate(rate),
      .active(at_work)
  );
endmodule
