// The synapse words: four banks, so that L gets four words at once, of two bytes of 9 bits each, so that a weight is
// written alone. Byte 0 of a word is its bits 16 and 7:0, byte 1 its bits 17 and 15:8. A bank is of several block RAMs
// with a register behind each, as the way out of a block RAM and through a multiplexer is too long for one clock. Where
// block RAMs of one bit are as deep as a bank, some are taken: they need no multiplexer, and an eighth more of them.
module nc_words #(
    parameter int W = 65536,
    parameter int WX = $clog2(W)
) (
    input  logic          clk,
    input  logic [WX-3:0] rrow,    // straight out of a register
    output logic [  71:0] words,   // three clocks after
    input  logic [   3:0] we_low,
    input  logic [   3:0] we_high,
    input  logic [WX-3:0] wrow,
    input  logic [  35:0] wdata    // a byte for each bank
);
  localparam int ROWS = W / 4;
  localparam int WANTED = ROWS / 4 > 2048 ? ROWS / 4 : 2048;
  localparam int DEPTH = ROWS < WANTED ? ROWS : WANTED;
  localparam int BLOCKS = ROWS / DEPTH;
  localparam int DX = $clog2(DEPTH);
  localparam int NARROW = ROWS == 16384 ? 6 : 0;  // bytes of banks

  for (genvar i = 0; i < 8; i++) begin : part
    logic we;
    logic [9*(i < NARROW ? 1 : BLOCKS)-1:0] bytes, held;
    logic [8:0] chosen;
    if (i < NARROW) begin : narrow
      for (genvar b = 0; b < 9; b++) begin : column
        nc_ram #(
            .WIDTH(1),
            .DEPTH(ROWS)
        ) ram (
            .clk,
            .we,
            .waddr(wrow),
            .wdata(wdata[9*(i/2)+b]),
            .raddr(rrow),
            .rdata(bytes[b])
        );
      end
      always_ff @(posedge clk) {chosen, held} <= {held, bytes};
    end else begin : wide
      for (genvar b = 0; b < BLOCKS; b++) begin : block
        logic here;
        nc_ram #(
            .WIDTH(9),
            .DEPTH(DEPTH)
        ) ram (
            .clk,
            .we   (here),
            .waddr(wrow[DX-1:0]),
            .wdata(wdata[9*(i/2)+:9]),
            .raddr(rrow[DX-1:0]),
            .rdata(bytes[9*b+:9])
        );
        if (BLOCKS > 1) begin : of_many
          assign here = we && wrow[WX-3:DX] == (WX-2-DX)'(b);
        end else begin : alone
          assign here = we;
        end
      end
      always_ff @(posedge clk) begin
        held   <= bytes;
        chosen <= held[8:0];
        for (int b = 1; b < BLOCKS; b++) if (32'(select) == b) chosen <= held[9*b+:9];
      end
    end
    if (i % 2 == 0) begin : low
      assign we = we_low[i/2];
      assign {words[18*(i/2)+16], words[18*(i/2)+:8]} = chosen;
    end else begin : high
      assign we = we_high[i/2];
      assign {words[18*(i/2)+17], words[18*(i/2)+8+:8]} = chosen;
    end
  end

  // which block, two clocks after the address
  logic [$clog2(BLOCKS+1)-1:0] select;
  if (BLOCKS > 1) begin : several
    logic [WX-3-DX:0] block1, block2;
    always_ff @(posedge clk) {block2, block1} <= {block1, rrow[WX-3:DX]};
    assign select = {1'b0, block2};
  end else begin : one
    assign select = '0;
  end
endmodule
