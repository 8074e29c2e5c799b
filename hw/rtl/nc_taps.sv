// The taps of a CONV row: for ky, kx ascending, where the tap counts, the first weight word and the first target.
module nc_taps (
    input  logic        clk,
    input  logic        rst,
    input  logic        start,
    input  logic [ 5:0] y,
    input  logic [ 5:0] x,
    input  logic [ 9:0] base,       // in 64 words
    output logic        finished,   // one clock
    // a tap: `count` weights from word `addr`, targets from `target` in steps of `step`
    output logic        valid,
    input  logic        ready,
    output logic [15:0] addr,
    output logic [ 9:0] target,
    output logic [ 9:0] count,
    output logic [ 9:0] step,
    // items of the geometry: `part` of the row's is here in the next clock
    output logic [ 1:0] part,
    input  logic [27:0] item
);
  typedef enum logic [3:0] {IDLE, ITEM0, ITEM1, ITEM2, INIT, ROW_CHECK, ROW_PRODUCT, ROW_BASE, TAP} state_t;
  state_t state;

  logic [3:0] kh, kw, ky, kx;
  logic [1:0] sy, sx;
  logic [2:0] dy, dx;
  logic [9:0] cout, first, row_base;
  // verilator lint_off UNUSEDSIGNAL
  logic addr_carry;
  // verilator lint_on UNUSEDSIGNAL
  logic [7:0] oy, ox;
  logic [5:0] ho, wo, row;
  // verilator lint_off UNUSEDSIGNAL
  logic [11:0] product;  // targets are modulo 1024
  // verilator lint_on UNUSEDSIGNAL
  logic [9:0] r, c, c_start, r_shift, c_shift;  // signed; |r|, |c| < 512 for every geometry
  logic row_counts, r_counts, c_counts, last_x, last_y;

  assign part = state == ITEM0 ? 2'd1 : state == ITEM1 ? 2'd2 : 2'd0;

  function automatic logic divides(input logic [1:0] s, input logic [2:0] low);
    divides = s == 2'd0 || (s == 2'd1 && !low[0]) || (s == 2'd2 && low[1:0] == 2'd0) || low == 3'd0;
  endfunction

  assign r_shift = r >> sy;
  assign c_shift = c >> sx;
  assign r_counts = !r[9] && divides(sy, r[2:0]) && r_shift < {4'd0, ho};
  assign c_counts = !c[9] && divides(sx, c[2:0]) && c_shift < {4'd0, wo};
  assign last_x = kx + 4'd1 == kw;
  assign last_y = ky + 4'd1 == kh;

  assign valid = state == TAP && row_counts && c_counts;
  assign target = row_base + c_shift;
  assign count = cout;

  always_ff @(posedge clk) begin
    finished <= 1'b0;
    case (state)
      IDLE: if (start) state <= ITEM0;
      ITEM0: begin
        {cout, dx, dy, sx, sy, kw, kh} <= item;
        state <= ITEM1;
      end
      ITEM1: begin
        {wo, ho, ox, oy} <= item;
        state <= ITEM2;
      end
      ITEM2: begin
        {first, step} <= item[19:0];
        state <= INIT;
      end
      INIT: begin
        r <= {4'd0, y} + {{2{oy[7]}}, oy};
        c_start <= {4'd0, x} + {{2{ox[7]}}, ox};
        addr <= {base, 6'd0};
        ky <= 4'd0;
        if (kh == 4'd0 || kw == 4'd0 || cout == 10'd0) begin
          finished <= 1'b1;
          state <= IDLE;
        end else state <= ROW_CHECK;
      end
      ROW_CHECK: begin
        row_counts <= r_counts;
        row <= r_shift[5:0];
        c <= c_start;
        kx <= 4'd0;
        state <= ROW_PRODUCT;
      end
      ROW_PRODUCT: begin
        product <= row * wo;
        state <= ROW_BASE;
      end
      ROW_BASE: begin
        row_base <= first + product[9:0];
        state <= TAP;
      end
      default:  // TAP
      if (!valid || ready) begin
        {addr, addr_carry} <= {addr, 1'b1} + {7'd0, cout};  // (cout + 1) / 2 words, in one sum
        c <= c - {7'd0, dx};
        kx <= kx + 4'd1;
        if (last_x) begin
          r <= r - {7'd0, dy};
          ky <= ky + 4'd1;
          finished <= last_y;
          state <= last_y ? IDLE : ROW_CHECK;
        end
      end
    endcase
    if (rst) state <= IDLE;
  end
endmodule
