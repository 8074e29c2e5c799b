// Reset from power-up, held until the clock is steady and the button is let go. The flip-flops begin at 0 in every FPGA
// that loads a bitstream.
module nc_reset (
    input  logic clk,
    input  logic steady,  // the PLL is locked; asynchronous
    input  logic button,  // pressed; asynchronous
    output logic rst
);
  logic [1:0] good;  // two stages against metastability
  logic [15:0] awake;

  initial begin
    good  = '0;
    awake = '0;
    rst   = 1'b1;
  end

  // not always_ff: `initial` writes here too
  always @(posedge clk) begin
    good <= {good[0], steady && !button};
    if (!good[1]) awake <= '0;
    else if (!awake[15]) awake <= awake + 16'd1;
    rst <= !awake[15];
  end
endmodule
